"""The step gives what the layer's own code gives, over windows, groups and several bottoms."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

NET = """
force_backward: %s
%s
layer { name: "up" type: "Deconvolution" %s %s convolution_param {
  num_output: %d bias_term: %s group: %d kernel_h: %d kernel_w: %d stride_h: %d stride_w: %d pad_h: %d pad_w: %d dilation: %d
  weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }
%s
"""
INPUT = 'layer { name: "x%d" type: "Input" top: "x%d" input_param { shape { %s } } }'
RELU = 'layer { name: "relu" type: "ReLU" bottom: "y0" top: "y0" }'


def nets(shape, outputs, window, *, group=1, bias=True, relu=False, bottoms=1, params="", force=True):
    """Fast and plain; window: kernel, stride, pad (each two numbers), dilation."""
    dims = " ".join(f"dim: {n}" for n in shape)
    sources = " ".join(INPUT % (i, i, dims) for i in range(bottoms))
    names = " ".join(f'bottom: "x{i}" top: "y{i}"' for i in range(bottoms))
    words = [str(value).lower() for value in (force, bias)]
    text = NET % (words[0], sources, names, params, outputs, words[1], group, *window, RELU if relu else "")
    return [Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=5, plain=plain) for plain in (False, True)]


def run(net, bottoms):
    random = np.random.default_rng(1)
    net.forward(**{f"x{i}": random.normal(size=net.blobs["x0"].shape) for i in range(bottoms)})
    for param in net.learnable:
        param.blob.diff[...] = 0.5
    net.backward(**{f"y{i}": random.normal(size=net.blobs["y0"].shape) for i in range(bottoms)})


def close(actual, expected):
    scale = max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * scale)


def compare(fast, plain, bottoms=1):
    for net in (fast, plain):
        run(net, bottoms)
    for i in range(bottoms):
        close(fast.blobs[f"y{i}"].data, plain.blobs[f"y{i}"].data)
        close(fast.blobs[f"x{i}"].diff, plain.blobs[f"x{i}"].diff)
    for mine, theirs in zip(fast.learnable, plain.learnable, strict=True):
        close(mine.blob.diff, theirs.blob.diff)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(1, n) for n in (3, 3, 7, 12)]),
    st.integers(1, 5),
    st.tuples(*[st.integers(1, 4)] * 2, *[st.integers(1, 3)] * 2, *[st.integers(0, 2)] * 2, st.integers(1, 2)),
    st.sampled_from([1, 1, 2, 3]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 2),
)
def test_step_gives_what_plain_code_gives(shape, outputs, window, group, bias, relu, bottoms):
    batch, channels, *sizes = shape
    kernel, stride, pad, dilation = window[:2], window[2:4], window[4:6], window[6]
    out = [s * (n - 1) + dilation * (k - 1) + 1 - 2 * p for n, k, s, p in zip(sizes, kernel, stride, pad)]
    assume(min(out) >= 1)
    shape = (batch, channels * group, *sizes)
    fast, plain = nets(shape, outputs * group, window, group=group, bias=bias, relu=relu, bottoms=bottoms)
    compare(fast, plain, bottoms)


# batch, channels, height, width; outputs; kernel, stride, pad (each two numbers), dilation; groups.
LAYERS = {
    "bilinear upsampling by 2": ((2, 21, 9, 9), 21, (4, 4, 2, 2, 1, 1, 1), 21),
    "bilinear upsampling by 8": ((1, 5, 6, 7), 5, (16, 16, 8, 8, 4, 4, 1), 5),
    "bilinear upsampling of a group": ((2, 8, 5, 5), 4, (4, 4, 2, 2, 1, 1, 1), 4),
    "score of a segmentation": ((1, 21, 8, 9), 21, (4, 4, 2, 2, 0, 0, 1), 1),
    "generator": ((2, 48, 4, 4), 24, (4, 4, 2, 2, 1, 1, 1), 1),
    "generator's first": ((3, 20, 1, 1), 40, (4, 4, 1, 1, 0, 0, 1), 1),
    "as large as before": ((2, 16, 10, 10), 24, (3, 3, 1, 1, 1, 1, 1), 1),
    "stride beyond the kernel": ((2, 4, 5, 5), 3, (2, 1, 3, 3, 0, 0, 1), 1),
}


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("numbers", LAYERS.values(), ids=LAYERS.keys())
def test_layer_of_a_known_net_gives_what_plain_code_gives(numbers, relu):
    shape, outputs, window, group = numbers
    fast, plain = nets(shape, outputs, window, group=group, relu=relu)
    compare(fast, plain)
    kernels = [step.kernel for step in fast.plan(fused=True).steps]
    assert kernels[1] != "plain"
    assert kernels[1].endswith("+relu") == relu


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_the_wanted_gradients_are_computed(frozen):
    params = " ".join(f"param {{ lr_mult: {int(i != frozen)} }}" for i in range(2))
    fast, plain = nets((2, 3, 5, 5), 4, (3, 3, 2, 2, 1, 1, 1), params=params, force=False)
    for net in (fast, plain):
        net.forward(x0=np.ones((2, 3, 5, 5)))
        net.clear_param_diffs()
        net.backward(y0=np.ones(net.blobs["y0"].shape))
        assert not net.params["up"][frozen].has_diff
        assert not net.blobs["x0"].has_diff
    close(fast.params["up"][1 - frozen].diff, plain.params["up"][1 - frozen].diff)


@pytest.mark.parametrize(("shape", "spatial"), [((2, 3, 5), 1), ((1, 2, 3, 4, 3), 3)])
def test_other_numbers_of_axes_run_plainly(shape, spatial):
    text = INPUT % (0, 0, " ".join(f"dim: {n}" for n in shape)) + (
        'layer { name: "up" type: "Deconvolution" bottom: "x0" top: "y0" convolution_param { num_output: 2 kernel_size: 2 } }'
    )
    net = Net(prototxt.parse(text, pb.NetParameter))
    assert net.forward(x0=np.ones(shape))["y0"].shape == (shape[0], 2, *(n + 1 for n in shape[2:]))
    assert [step.kernel for step in net.plan(fused=True).steps][1] == "plain"
    assert net.layers[1].num_spatial == spatial


def test_absurdly_long_strides_run_plainly_and_soon():
    fast, plain = nets((1, 1, 3, 5), 2, (9, 5, 1_000_000, 1, 40, 4, 1))
    compare(fast, plain)
    assert [step.kernel for step in fast.plan(fused=True).steps][1] == "plain"
