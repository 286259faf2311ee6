"""Convolutions with kept columns equal those with all columns, forward, backward and when they are made smaller."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.layers.kept_columns import crop_kernel, drop_columns, expand_columns
from sslnet.net.net import Net

MODES = [None, *pb.ConvolutionParameter.ConvMode.keys()]


def net_of(convolution: str, *, plain=False, dtype=np.float32, shape=(2, 4, 7, 6), phase=pb.TRAIN, more="") -> Net:
    sizes = " ".join(f"dim: {n}" for n in shape)
    text = (
        f'force_backward: true layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {sizes} }} }} }}\n'
        f'layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y" {more} convolution_param {{ {convolution} }} }}\n'
        'layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }\n'
        'layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 '
        "reduction_param { operation: SUMSQ } }\n"
    )
    return Net(prototxt.parse(text, pb.NetParameter), phase=phase, dtype=dtype, plain=plain)


def run(net: Net, x, weights, bias):
    conv = net.layers[net.layer_names.index("conv")]
    conv.blobs[0].data[...] = weights
    conv.blobs[1].data[...] = bias
    net.clear_param_diffs()
    net.forward(x=x)
    net.backward()
    return [net.blobs["y"].data.copy(), net.blobs["x"].diff.copy(), *(blob.diff.copy() for blob in conv.blobs)]


@st.composite
def cases(draw):
    """A convolution in words, its group, whole weights with zero columns, and the columns kept of each group."""
    group = draw(st.sampled_from([1, 2]))
    kernel, stride = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2]))
    pad, dilation = draw(st.integers(0, 2)), draw(st.sampled_from([1, 2]))
    assume(6 + 2 * pad >= dilation * (kernel - 1) + 1)
    columns = 4 // group * kernel * kernel
    count = draw(st.integers(1, columns))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    kept = np.sort([random.permutation(columns)[:count] for _ in range(group)], axis=1)
    weights = random.standard_normal((6, count)).astype(np.float32)
    weights[random.random(6) < 0.3] = 0
    words = f"num_output: 6 group: {group} kernel_size: {kernel} stride: {stride} pad: {pad} dilation: {dilation}"
    return words, kept, weights, (6, 4 // group, kernel, kernel)


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(MODES), st.booleans())
def test_kept_columns_equal_the_whole_convolution(case, mode, plain):
    words, kept, weights, shape = case
    random = np.random.default_rng(1)
    x, bias = random.standard_normal((2, 4, 7, 6)).astype(np.float32), random.standard_normal(6).astype(np.float32)
    expected = run(net_of(words, plain=True, dtype=np.float64), x, expand_columns(weights, kept, shape), bias)
    listed = " ".join(f"kept_column: {k}" for k in kept.ravel()) + (f" conv_mode: {mode}" if mode else "")
    actual = run(net_of(f"{words} {listed}", plain=plain), x, weights, bias)
    matrices = expected[2].reshape(len(kept), 6 // len(kept), -1)
    expected[2] = np.take_along_axis(matrices, kept[:, None], axis=2).reshape(weights.shape)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * max(1, np.abs(theirs).max()))


def test_zeros_that_are_frozen_get_no_gradient_and_the_others_the_right_one():
    words = "num_output: 8 kernel_size: 3 pad: 1 conv_mode: LOWERED_CCNMM"
    random = np.random.default_rng(2)
    x, weights = random.standard_normal((2, 4, 7, 6)), random.standard_normal((8, 4, 3, 3))
    weights.reshape(8, -1)[:, random.permutation(36)[:26]] = 0
    weights[2] = 0
    whole, frozen = net_of(words, plain=True), net_of(words)
    alive = (weights != 0).reshape(-1)
    frozen.layers[frozen.layer_names.index("conv")].frozen = alive.view(np.uint8)
    expected, actual = run(whole, x, weights, 0.1), run(frozen, x, weights, 0.1)
    np.testing.assert_allclose(actual[2].reshape(-1)[alive], expected[2].reshape(-1)[alive], rtol=0, atol=1e-3)
    assert not actual[2].reshape(-1)[~alive].any()
    np.testing.assert_allclose(actual[3], expected[3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((0, 5, 5), "kept_column must ascend in each group: 5 comes after 5"),
        ((0, 36), "kept_column 36 is no column: a filter has 36, from 0 on"),
    ],
)
def test_columns_that_cannot_be_are_errors(columns, message):
    listed = " ".join(f"kept_column: {k}" for k in columns)
    with pytest.raises(DefinitionError, match=message) as caught:
        net_of(f"num_output: 2 kernel_size: 3 {listed}")
    assert caught.value.span is not None


def test_columns_that_groups_cannot_share_out_are_an_error():
    with pytest.raises(DefinitionError, match="as often for each of 2 groups, not 3 times"):
        net_of("num_output: 2 group: 2 kernel_size: 3 kept_column: 0 kept_column: 1 kept_column: 2")


def test_a_deconvolution_has_no_kept_columns():
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }\n'
        'layer { name: "up" type: "Deconvolution" bottom: "x" top: "y" '
        "convolution_param { num_output: 2 kernel_size: 3 kept_column: 1 } }"
    )
    with pytest.raises(DefinitionError, match="kept_column is for Convolution"):
        Net(prototxt.parse(text, pb.NetParameter))


def test_dropped_columns_come_back_as_zeros():
    weights = np.zeros((4, 3, 3, 3), np.float32)
    weights.reshape(2, 2, 27)[0][:, [1, 5, 26]] = 1
    weights.reshape(2, 2, 27)[1][1, 7] = 2
    param = pb.ConvolutionParameter(group=2)
    fewer = drop_columns(param, weights)
    assert list(param.kept_column) == [1, 5, 26, 0, 1, 7]
    assert fewer.shape == (4, 3)
    np.testing.assert_array_equal(expand_columns(fewer, np.reshape(param.kept_column, (2, 3)), (4, 3, 3, 3)), weights)


def test_few_zero_columns_are_not_worth_listing():
    weights = np.ones((4, 3, 3, 3), np.float32)
    weights[:, 0, 0, 0] = 0
    param = pb.ConvolutionParameter()
    assert drop_columns(param, weights) is weights
    assert not param.kept_column


@pytest.mark.parametrize(
    ("pad", "dilation", "border", "kernel", "left"),
    [(2, 1, 1, 3, 1), (2, 1, 2, 1, 0), (1, 1, 2, 3, 0), (0, 1, 1, 5, 0), (4, 2, 1, 3, 2), (3, 2, 1, 3, 1)],
)
def test_zero_kernel_borders_go_as_far_as_padding_allows(pad, dilation, border, kernel, left):
    words = f"num_output: 3 kernel_size: 5 pad: {pad} dilation: {dilation} stride: 2"
    shape = (2, 2, 11, 12)
    whole = net_of(words, shape=shape)
    conv = whole.layers[whole.layer_names.index("conv")]
    random = np.random.default_rng(0)
    weights = np.zeros((3, 2, 5, 5), np.float32)
    weights[:, :, border : 5 - border, border : 5 - border] = random.standard_normal(
        (3, 2, 5 - 2 * border, 5 - 2 * border)
    )
    param = pb.ConvolutionParameter()
    param.CopyFrom(conv.param.convolution_param)
    cropped = crop_kernel(param, weights, conv.window)
    assert cropped.shape == (3, 2, kernel, kernel)
    assert (list(param.kernel_size), list(param.pad)) == ([kernel], [left]) or kernel == 5
    small = net_of(str(param).replace("\n", " "), shape=shape)
    x = random.standard_normal(shape)
    for ours, theirs in zip(run(small, x, cropped, 0.5)[:2], run(whole, x, weights, 0.5)[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
