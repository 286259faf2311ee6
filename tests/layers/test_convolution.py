"""Convolution over any number of axes against sums taken one by one, and what only some of its gradients cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.layers.axes import Window
from sslnet.net.net import Net

from .harness import inputs


def convolution(shape, param: str, *, specs="", dtype=np.float64) -> Net:
    text = f'layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y" {specs} convolution_param {{ {param} }} }}'
    net = Net(prototxt.parse(inputs(x=shape) + text, pb.NetParameter), dtype=dtype, seed=1)
    random = np.random.default_rng(5)
    for blob in net.params["conv"]:
        blob.data[...] = random.standard_normal(blob.shape)
    return net


def naive(x, weights, bias, window: Window, group: int):
    """(N, C, spatial ...) by the definition."""
    out = [
        (n + 2 * p - (d * (k - 1) + 1)) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], window.kernel, window.stride, window.pad, window.dilation)
    ]
    y = np.zeros((len(x), len(weights), *out))
    inside = x.shape[1] // group
    for n, f, *o in itertools.product(*map(range, y.shape)):
        first = f // (len(weights) // group) * inside
        total = bias[f]
        for c, *k in itertools.product(range(inside), *map(range, window.kernel)):
            at = [a * s - p + b * d for a, b, s, p, d in zip(o, k, window.stride, window.pad, window.dilation)]
            if all(0 <= i < size for i, size in zip(at, x.shape[2:])):
                total += weights[(f, c, *k)] * x[(n, first + c, *at)]
        y[(n, f, *o)] = total
    return y


@pytest.mark.parametrize(
    ("shape", "window", "group"),
    [
        ((2, 4, 9), Window((3,), (2,), (2,), (2,)), 2),
        ((2, 2, 5, 6), Window((3, 2), (2, 1), (1, 0), (1, 2)), 1),
        ((1, 4, 4, 5, 3), Window((2, 3, 2), (2, 1, 1), (1, 0, 1), (1, 2, 1)), 2),
        ((1, 1, 3, 2, 3, 2), Window((2, 1, 2, 2), (1, 1, 2, 1), (0, 0, 1, 0), (1, 1, 1, 1)), 1),
        ((2, 3, 4, 4), Window((1, 1), (1, 1), (0, 0), (1, 1)), 3),
    ],
)
def test_convolution_over_any_number_of_axes_is_its_sum(shape, window, group):
    param = f"num_output: {2 * group} group: {group} "
    for field, values in zip(
        ("kernel_size", "stride", "pad", "dilation"), (window.kernel, window.stride, window.pad, window.dilation)
    ):
        param += "".join(f"{field}: {value} " for value in values)
    net = convolution(shape, param)
    x = np.random.default_rng(6).standard_normal(shape)
    weights, bias = (blob.data for blob in net.params["conv"])
    np.testing.assert_allclose(net.forward(x=x)["y"], naive(x, weights, bias, window, group), rtol=1e-10, atol=1e-10)


def test_convolution_along_a_later_axis_treats_the_axes_before_it_as_images():
    net = convolution((2, 3, 4, 5, 5), "num_output: 2 kernel_size: 3 axis: 2")
    x = np.random.default_rng(6).standard_normal((2, 3, 4, 5, 5))
    weights, bias = (blob.data for blob in net.params["conv"])
    expected = naive(x.reshape(6, 4, 5, 5), weights, bias, Window((3, 3), (1, 1), (0, 0), (1, 1)), 1)
    np.testing.assert_allclose(net.forward(x=x)["y"], expected.reshape(2, 3, 2, 3, 3), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_parameter_gets_no_gradient(frozen, dtype):
    specs = "".join(f"param {{ lr_mult: {int(i != frozen)} }} " for i in range(2)) + "loss_weight: 1"
    net = convolution((2, 3, 6, 6), "num_output: 2 kernel_size: 3", specs=specs, dtype=dtype)
    net.forward(x=np.random.default_rng(6).standard_normal((2, 3, 6, 6)))
    net.backward()
    diffs = [blob.diff for blob in net.params["conv"]]
    assert not diffs[frozen].any()
    assert diffs[1 - frozen].all()


def test_convolution_counts_two_operations_a_weight_and_output():
    net = convolution((2, 4, 6, 6), "num_output: 8 kernel_size: 3 group: 2")
    layer = net.layers[1]
    assert layer.flops(net.bottoms[1], net.tops[1]) == 2 * (2 * 8 * 4 * 4) * (2 * 9)
