"""The step gives what the layer's own code gives, in every form the layer has, and sees every change of the weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.change_detector import SameBits
from sslnet.net.net import Net

NET = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { %s } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param {
  num_output: %d axis: %d %s weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
"""


def nets(shape, outputs, numbers, *, axis=1, phase=pb.TRAIN):
    dims = " ".join(f"dim: {n}" for n in shape)
    text = NET % (dims, outputs, axis, numbers)
    return [Net(prototxt.parse(text, pb.NetParameter), phase=phase, seed=5, plain=plain) for plain in (False, True)]


def run(net, backward=True):
    random = np.random.default_rng(1)
    net.forward(x=random.normal(size=net.blobs["x"].shape))
    if backward:
        net.clear_param_diffs()
        net.backward(conv=random.normal(size=net.blobs["conv"].shape))


def compare(fast, plain):
    """Within 2e-5 of the largest value; 1e-4, as in the tests of the kernels, where Winograd's transforms add to the rounding."""
    within = 1e-4 if kernel(fast).startswith("winograd") else 2e-5
    pairs = [
        (net.blobs["conv"].data, net.blobs["x"].diff, *(p.blob.diff for p in net.learnable)) for net in (fast, plain)
    ]
    for mine, theirs in zip(*pairs):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=within * max(1, np.abs(theirs).max()))


def kernel(net):
    return net.plan(fused=True).steps[1].kernel


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_one_axis_equals_the_plain_code(data):
    kernel_size, stride, pad, dilation = (data.draw(st.integers(low, 3)) for low in (1, 1, 0, 1))
    group = data.draw(st.sampled_from([1, 2]))
    numbers = f"kernel_size: {kernel_size} stride: {stride} pad: {pad} dilation: {dilation} group: {group}"
    fast, plain = nets((2, 4, data.draw(st.integers(7, 40))), 6, numbers)
    run(fast)
    run(plain)
    assert kernel(fast).split()[0] in ("filters", "pixels")
    compare(fast, plain)


@pytest.mark.parametrize("shape", [(2, 3, 4, 9, 8), (2, 3, 4, 9)], ids=["two axes", "one axis"])
def test_channels_behind_two_axes_equal_the_plain_code(shape):
    fast, plain = nets(shape, 6, "kernel_size: 3 pad: 1", axis=2)
    run(fast)
    run(plain)
    compare(fast, plain)


def test_three_axes_run_plainly():
    fast, plain = nets((1, 2, 4, 5, 6), 3, "kernel_size: 3 pad: 1")
    run(fast)
    run(plain)
    assert kernel(fast) == "plain"
    compare(fast, plain)


def test_a_layer_that_asks_for_the_engine_of_caffe_gets_sums_of_products():
    shape, numbers = (8, 32, 24, 24), "kernel_size: 3 pad: 1"
    default, own = (nets(shape, 32, numbers + engine)[0] for engine in ("", " engine: CAFFE"))
    run(default)
    run(own)
    assert kernel(default).startswith("winograd")
    assert not kernel(own).startswith("winograd")
    compare(default, own)


@pytest.mark.parametrize("which", [0, 1], ids=["weights", "bias"])
def test_a_net_in_phase_test_sees_every_change_of_its_weights(which):
    fast, plain = nets((2, 3, 8, 8), 5, "kernel_size: 3", phase=pb.TEST)
    for net in (fast, plain):
        run(net, backward=False)
        net.params["conv"][which].data[-1] += 1
        run(net, backward=False)
    np.testing.assert_allclose(fast.blobs["conv"].data, plain.blobs["conv"].data, atol=1e-5)


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
def test_held_weights_are_packed_once_each_time_they_are_held(phase):
    fast, _ = nets((2, 3, 8, 8), 5, "kernel_size: 3", phase=phase)
    plan = fast.plan(fused=True)
    run(fast, backward=False)
    before = fast.blobs["conv"].data.copy()
    plan.hold_weights(True)
    run(fast, backward=False)
    fast.params["conv"][0].data[...] = 0
    run(fast, backward=False)
    np.testing.assert_array_equal(fast.blobs["conv"].data, before)
    plan.hold_weights(True)
    run(fast, backward=False)
    assert not np.array_equal(fast.blobs["conv"].data, before)
    after = fast.blobs["conv"].data.copy()
    fast.params["conv"][1].data[...] += 1
    plan.hold_weights(False)
    run(fast, backward=False)
    assert not np.array_equal(fast.blobs["conv"].data, after)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000), st.data())
def test_same_bits_sees_the_change_of_any_bit(size, data):
    array = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    array[::3] = np.nan
    seen = SameBits()
    assert seen.changed(array)
    assert not seen.changed(array.copy())
    array.view(np.uint32)[data.draw(st.integers(0, size - 1))] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert seen.changed(array)
    assert not seen.changed(array)
    array.flags.writeable = False
    assert not seen.changed(array)
