"""The plan: fast steps give what the layers' own code gives, whole runs and parts of runs alike."""

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net
from sslnet.net.plan_cache import KEPT_PLANS

NET = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 4 dim: 9 dim: 7 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" %s
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 group: 2 weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: %s } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 2 weight_filler { type: "gaussian" } } }
"""


def nets(slope=0, extra=""):
    text = NET % (extra, slope)
    return [Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=3, plain=plain) for plain in (False, True)]


def run(net, seed=0):
    random = np.random.default_rng(seed)
    net.forward(x=random.normal(size=net.blobs["x"].shape))
    net.clear_param_diffs()
    net.backward(ip=random.normal(size=net.blobs["ip"].shape))


def compare(fast, plain):
    for name in fast.blobs:
        np.testing.assert_allclose(fast.blobs[name].data, plain.blobs[name].data, atol=1e-5)
    np.testing.assert_allclose(fast.blobs["x"].diff, plain.blobs["x"].diff, atol=1e-5)
    for mine, theirs in zip(fast.learnable, plain.learnable):
        np.testing.assert_allclose(mine.blob.diff, theirs.blob.diff, atol=1e-4)


@pytest.mark.parametrize("slope", [0, 0.1])
def test_fast_steps_give_what_plain_code_gives(slope):
    fast, plain = nets(slope)
    run(fast)
    run(plain)
    compare(fast, plain)


def test_relu_joins_the_convolution_only_when_the_whole_net_runs():
    fast, plain = nets()
    run(fast)
    run(plain)
    kernels = [step.kernel for step in fast.plan(fused=True).steps]
    assert kernels[1].endswith("+relu")
    assert kernels[2] == "joined"
    fast.forward(end="conv")
    plain.forward(end="conv")
    assert (fast.blobs["conv"].data < 0).any()
    np.testing.assert_allclose(fast.blobs["conv"].data, plain.blobs["conv"].data, atol=1e-5)


def test_leaky_relu_does_not_join():
    fast, _ = nets(0.1)
    assert [step.kernel for step in fast.plan(fused=True).steps][2] == "plain"


def test_only_the_wanted_gradients_are_computed():
    frozen = "param { lr_mult: 0 } param { lr_mult: 1 }"
    fast, plain = (
        Net(
            prototxt.parse(NET.replace("force_backward: true", "") % (frozen, 0) + LOSS, pb.NetParameter),
            phase=pb.TRAIN,
            seed=3,
            plain=plain,
        )
        for plain in (False, True)
    )
    for net in (fast, plain):
        net.forward(x=np.ones(net.blobs["x"].shape), t=np.zeros((3, 2)))
        net.backward()
        assert not net.params["conv"][0].has_diff
    np.testing.assert_allclose(fast.params["conv"][1].diff, plain.params["conv"][1].diff, rtol=1e-4)


LOSS = """
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 3 dim: 2 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
"""


def test_a_new_shape_makes_a_new_plan():
    fast, plain = nets()
    for net in (fast, plain):
        run(net)
        net.blobs["x"].reshape(5, 4, 9, 7)
        net.reshape()
        run(net, seed=1)
    compare(fast, plain)


def test_plans_of_the_last_shapes_are_kept():
    fast, plain = nets()
    plans = {}
    for batch in (3, 5, 3, 5):
        for net in (fast, plain):
            net.blobs["x"].reshape(batch, 4, 9, 7)
            run(net, seed=batch)
        compare(fast, plain)
        assert plans.setdefault(batch, fast.plan(fused=True)) is fast.plan(fused=True)
    for batch in range(6, 12):
        fast.blobs["x"].reshape(batch, 4, 9, 7)
        run(fast)
    assert len(fast._plans.plans) == KEPT_PLANS
