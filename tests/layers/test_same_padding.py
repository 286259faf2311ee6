"""pad_type SAME against TensorFlow's rule, worked by hand and summed pixel by pixel in float64; on every path that runs it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.low_rank.low_rank import low_rank
from sslnet.errors import DefinitionError, ShapeError
from sslnet.kernels.conv.im2col import same_padding
from sslnet.net.net import Net
from sslnet.net.weights import copy_all_weights, stored_weights
from sslnet.prototxt import Definition

from .harness import inputs


def net_of(type_: str, param: str, shape: tuple[int, ...], **options) -> Net:
    name = "pooling_param" if type_ == "Pooling" else "convolution_param"
    text = f'layer {{ name: "l" type: "{type_}" bottom: "x" top: "y" {name} {{ {param} pad_type: SAME }} }}'
    net = Net(prototxt.parse(inputs(x=shape) + text, pb.NetParameter), seed=1, phase=pb.TEST, **options)
    random = np.random.default_rng(3)
    for blob in net.params.get("l", []):
        blob.data[...] = random.standard_normal(blob.shape)
    return net


def windows(size: int, kernel: int, stride: int, dilation: int = 1) -> list[list[tuple[int, int]]]:
    """For each output along one axis the pairs (kernel element, pixel) inside the image, by TensorFlow's rule.

    https://www.tensorflow.org/api_docs/python/tf/nn: out = ceil(size / stride), total = max((out - 1) stride + reach -
    size, 0), of which total // 2 are in front.
    """
    out = math.ceil(size / stride)
    reach = dilation * (kernel - 1) + 1
    front = max((out - 1) * stride + reach - size, 0) // 2
    places = ((o * stride - front + k * dilation, k) for o in range(out) for k in range(kernel))
    grouped = [list(itertools.islice(places, kernel)) for _ in range(out)]
    return [[(k, at) for at, k in row if 0 <= at < size] for row in grouped]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "pads"),
    [
        (13, 6, 5, 1, (1, 2)),  # the example of TensorFlow's documentation: 3 windows, 1 zero in front, 2 behind
        (28, 3, 2, 1, (0, 1)),
        (14, 3, 2, 1, (0, 1)),
        (7, 3, 2, 1, (1, 1)),
        (5, 3, 1, 1, (1, 1)),
        (5, 2, 1, 1, (0, 1)),
        (5, 4, 1, 1, (1, 2)),
        (6, 3, 1, 2, (2, 2)),
        (4, 1, 2, 1, (0, 0)),
        (3, 2, 5, 1, (0, 0)),
        (1, 3, 2, 1, (1, 1)),
    ],
)
def test_same_padding_by_hand(size, kernel, stride, dilation, pads):
    assert same_padding(size, kernel, stride, dilation) == pads


def expected_convolution(x, weights, bias, stride, dilation, group):
    """(N, filters, out ...) by sums over ``windows``."""
    rows, columns = (
        windows(n, k, s, d) for n, k, s, d in zip(x.shape[2:], weights.shape[2:], stride, dilation, strict=True)
    )
    inside, each = x.shape[1] // group, len(weights) // group
    y = np.zeros((len(x), len(weights), len(rows), len(columns)))
    for f, (r, row), (q, column) in itertools.product(range(len(weights)), enumerate(rows), enumerate(columns)):
        first = f // each * inside
        for (i, h), (j, w) in itertools.product(row, column):
            y[:, f, r, q] += x[:, first : first + inside, h, w] @ weights[f, :, i, j]
    return y + bias.reshape(-1, 1, 1)


shapes = {
    "size": st.tuples(st.integers(1, 9), st.integers(1, 9)),
    "kernel": st.tuples(st.integers(1, 5), st.integers(1, 5)),
    "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
    "group": st.sampled_from([1, 2, 4]),
}


def param_of(kernel, stride, dilation, group):
    fields = zip(("kernel_size", "stride", "dilation"), (kernel, stride, dilation))
    return f"num_output: 4 group: {group} " + " ".join(f"{name}: {a} {name}: {b}" for name, (a, b) in fields)


@pytest.mark.parametrize("options", [{"plain": True, "dtype": np.float64}, {}], ids=["reference", "planned"])
@settings(deadline=None, max_examples=40)
@given(**shapes)
def test_convolution_takes_the_windows_of_tensorflow(options, size, kernel, stride, dilation, group):
    net = net_of("Convolution", param_of(kernel, stride, dilation, group), (2, 4, *size), **options)
    x = np.random.default_rng(4).standard_normal((2, 4, *size))
    weights, bias = (blob.data.astype(np.float64) for blob in net.params["l"])
    expected = expected_convolution(x, weights, bias, stride, dilation, group)
    np.testing.assert_allclose(net.forward(x=x)["y"], expected, rtol=1e-4, atol=2e-5 if not options else 1e-12)


@pytest.mark.parametrize("options", [{"plain": True, "dtype": np.float64}, {}], ids=["reference", "planned"])
@settings(deadline=None, max_examples=40)
@given(**shapes)
def test_deconvolution_is_the_adjoint_of_the_convolution(options, size, kernel, stride, dilation, group):
    """conv2d_transpose: the image grows by the stride, and each value adds its filter where the convolution reads it."""
    net = net_of("Deconvolution", param_of(kernel, stride, dilation, group), (2, 4, *size), **options)
    x = np.random.default_rng(4).standard_normal((2, 4, *size))
    weights, bias = (blob.data.astype(np.float64) for blob in net.params["l"])
    y = net.forward(x=x)["y"]
    grown = tuple(n * s for n, s in zip(size, stride))
    assert y.shape == (2, 4, *grown)
    rows, columns = (windows(n, k, s, d) for n, k, s, d in zip(grown, kernel, stride, dilation))
    each = 4 // group
    expected = np.zeros(y.shape) + bias.reshape(-1, 1, 1)
    for c, (r, row), (q, column) in itertools.product(range(4), enumerate(rows), enumerate(columns)):
        first = c // each * each
        for (i, h), (j, w) in itertools.product(row, column):
            expected[:, first : first + each, h, w] += np.outer(x[:, c, r, q], weights[c, :, i, j])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=2e-5 if not options else 1e-12)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@settings(deadline=None, max_examples=60)
@given(size=shapes["size"], kernel=shapes["kernel"], stride=shapes["stride"])
def test_pooling_looks_at_pixels_alone(method, size, kernel, stride):
    """tf.nn.max_pool, tf.nn.avg_pool: padding is no value, and is not counted."""
    param = f"pool: {method} kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]}"
    net = net_of("Pooling", param, (2, 3, *size))
    x = np.random.default_rng(4).standard_normal((2, 3, *size)) - 3
    rows, columns = (windows(n, k, s) for n, k, s in zip(size, kernel, stride))
    y = net.forward(x=x)["y"]
    assert y.shape[2:] == (len(rows), len(columns))
    for (r, row), (q, column) in itertools.product(enumerate(rows), enumerate(columns)):
        if not row or not column:
            continue  # a window of a kernel below the stride may lie behind the image
        inside = x[:, :, [h for _, h in row]][..., [w for _, w in column]]
        value = inside.max((2, 3)) if method == "MAX" else inside.mean((2, 3))
        np.testing.assert_allclose(y[:, :, r, q], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("type_", "param", "message"),
    [
        ("Convolution", "num_output: 2 kernel_size: 3 pad: 1", "with pad_type SAME the padding follows"),
        ("Deconvolution", "num_output: 2 kernel_size: 3 pad_h: 1 pad_w: 1", "with pad_type SAME the padding follows"),
        ("Pooling", "kernel_size: 3 pad: 1", "with pad_type SAME the padding follows"),
        ("Pooling", "kernel_size: 3 round_mode: FLOOR", r"the number of windows is ceil\(size / stride\)"),
        ("Pooling", "global_pooling: true", "with global_pooling there is no padding"),
        ("Pooling", "pool: STOCHASTIC kernel_size: 2", "STOCHASTIC pooling has no padding"),
    ],
)
def test_same_beside_what_it_excludes_is_an_error(type_, param, message):
    with pytest.raises(DefinitionError, match=message):
        net_of(type_, param, (1, 2, 6, 6))


def test_same_follows_an_image_of_another_size():
    net = net_of("Convolution", "num_output: 2 kernel_size: 3 stride: 2", (1, 2, 6, 6))
    layer = net.layers[-1]
    assert (layer.window.pad, layer.window.pad_end) == ((0, 0), (1, 1))
    net.blobs["x"].reshape(1, 2, 7, 7)
    net.reshape()
    assert (layer.window.pad, layer.window.pad_end) == ((1, 1), (1, 1))
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 7))
    weights, bias = (blob.data.astype(np.float64) for blob in net.params["l"])
    expected = expected_convolution(x, weights, bias, (2, 2), (1, 1), 1)
    np.testing.assert_allclose(net.forward(x=x)["y"], expected, rtol=1e-4, atol=1e-5)


STACK = """
layer { name: "c1" type: "Convolution" bottom: "x" top: "c1" convolution_param { num_output: 6 kernel_size: 5 stride: 2 pad_type: SAME } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad_type: SAME } }
layer { name: "d1" type: "Deconvolution" bottom: "p1" top: "d1" convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad_type: SAME } }
layer { name: "y" type: "Convolution" bottom: "d1" top: "y" convolution_param { num_output: 2 kernel_size: 3 pad_type: SAME } }
"""


def stack(border: int) -> tuple[Definition, Net]:
    """The stack with two dead filters of c1, a constant one, and zero borders of c1's kernels."""
    message = prototxt.parse(inputs(x=(2, 3, 10, 12)) + STACK, pb.NetParameter)
    net = Net(message, seed=1, phase=pb.TEST)
    random = np.random.default_rng(3)
    for param in net.learnable:
        param.blob.data[...] = random.standard_normal(param.blob.shape)
    weights, bias = net.params["c1"]
    weights.data[[1, 3, 4]] = 0
    bias.data[[1, 3]] = -1
    bias.data[4] = 0.5
    if border:
        whole = weights.data.copy()
        weights.data[...] = 0
        weights.data[:, :, border:-border, border:-border] = whole[:, :, border:-border, border:-border]
    return message, net


@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize("standard_only", [False, True])
def test_compaction_of_a_net_with_same_padding_is_exact(border, standard_only):
    message, net = stack(border)
    small = compact(message, net.to_proto(), standard_only=standard_only)
    c1 = next(layer for layer in small.message.layer if layer.name == "c1")
    assert c1.convolution_param.num_output == 3 + len(small.carriers), "a constant channel may stay for its border"
    assert list(c1.convolution_param.kernel_size) == [5 - 2 * border]
    assert small.difference.relative < 1e-5
    notes = " ".join(small.notes)
    assert ("pad_type SAME" in notes) == standard_only


def test_low_rank_factors_of_a_same_convolution_keep_its_windows():
    text = 'layer { name: "c1" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 8 kernel_size: 4 stride: 2 pad_type: SAME } }'
    message = prototxt.parse(inputs(x=(2, 6, 9, 12)) + text, pb.NetParameter)
    net = Net(message, seed=1, phase=pb.TEST)
    random = np.random.default_rng(3)
    # Rank one along rows and columns: the spatial factors are exact.
    net.params["c1"][0].data[...] = np.einsum(
        "ci,fj->fcij", random.standard_normal((6, 4)), random.standard_normal((8, 4))
    )
    result = low_rank(message, net.to_proto(), error=1e-6, methods=["spatial"])
    small = Net(result.message, phase=pb.TEST)
    copy_all_weights(small.params, stored_weights(result.weights))
    assert [layer.name for layer in small.layers][1:] == ["c1_basis", "c1"]
    x = random.standard_normal((2, 6, 9, 12))
    np.testing.assert_allclose(small.forward(x=x)["y"], net.forward(x=x)["y"], rtol=1e-4, atol=1e-4)


def test_shape_error_of_same_names_the_condition():
    with pytest.raises(ShapeError, match="no pixels"):
        net_of("Convolution", "num_output: 2 kernel_size: 3", (1, 2, 0, 6))
