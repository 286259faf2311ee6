"""Eltwise sums with a ReLU behind them, against the layers' own code."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

NET = """
force_backward: true
layer { name: "in" type: "Input" top: "a" top: "b" top: "c" input_param { shape { dim: 2 dim: 3 dim: 5 } } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y" eltwise_param { %s } }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" relu_param { negative_slope: %g } }
"""


def made(param: str, slope: float, **options) -> Net:
    return Net(prototxt.parse(NET % (param, slope), pb.NetParameter), phase=pb.TRAIN, **options)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize(
    ("param", "slope", "joined"),
    [("", 0, True), ("coeff: 1 coeff: -2 coeff: 0.5", 0, True), ("", 0.1, False), ("operation: PROD", 0, False)],
)
def test_sum_and_relu_give_what_plain_code_gives(param, slope, joined, lean):
    fast, plain = made(param, slope, lean=lean), made(param, slope, plain=True)
    assert (fast.plan(fused=True).steps[-1].kernel == "joined") is joined
    random = np.random.default_rng(1)
    for _ in range(2):
        values = {name: random.normal(size=(2, 3, 5)).astype(np.float32) for name in "abc"}
        dy = random.normal(size=(2, 3, 5)).astype(np.float32)
        results = []
        for net in (fast, plain):
            y = net.forward(**values)["y"].copy()
            results.append([y, *(diff.copy() for diff in net.backward(diffs=["a", "b", "c"], y=dy).values())])
        for mine, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)


def test_without_the_relu_the_sum_keeps_what_is_negative():
    net = made("", 0)
    values = {name: np.full((2, 3, 5), -1, np.float32) for name in "abc"}
    assert (net.forward(**values)["y"] == 0).all()
    np.testing.assert_array_equal(net.forward(end="sum", **values)["y"], -3)
