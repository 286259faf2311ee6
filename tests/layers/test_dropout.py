"""Dropout: which values are kept, and that the choice is a function of seed, layer, pass and place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.threads import num_threads, set_num_threads
from sslnet.net.net import Net

from .harness import inputs

SHAPE = (40, 1000)
ONES = np.ones(SHAPE)


def dropout(ratio=0.5, *, seed=1, name="drop", phase=pb.TRAIN, dtype=np.float32, top="y") -> Net:
    text = f'layer {{ name: "{name}" type: "Dropout" bottom: "x" top: "{top}" dropout_param {{ dropout_ratio: {ratio} }} }}'
    definition = prototxt.parse("force_backward: true " + inputs(x=SHAPE) + text, pb.NetParameter)
    return Net(definition, phase=phase, seed=seed, dtype=dtype)


@pytest.mark.parametrize("ratio", [0, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(ratio):
    y = dropout(ratio).forward(x=ONES)["y"]
    assert set(np.unique(y)) <= {np.float32(0), np.float32(1 / (1 - np.float32(ratio)))}
    # 5 standard deviations
    assert (y == 0).mean() == pytest.approx(ratio, abs=5 * math.sqrt(0.25 / y.size))
    # Neighbours are dropped independently of each other.
    pairs = (y[:, 1:] == 0) & (y[:, :-1] == 0)
    assert pairs.mean() == pytest.approx(ratio**2, abs=5 * math.sqrt(0.25 / y.size))


def test_dropout_passes_everything_in_test():
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    np.testing.assert_array_equal(dropout(phase=pb.TEST).forward(x=x)["y"], x)


def test_dropout_sends_the_gradient_where_the_values_went():
    net = dropout()
    y = net.forward(x=ONES)["y"].copy()
    np.testing.assert_array_equal(net.backward(y=ONES)["x"], y)


def test_dropout_in_place_is_dropout():
    expected = dropout().forward(x=ONES)["y"]
    net = dropout(top="x")
    net.blobs["x"].data[...] = 1
    np.testing.assert_array_equal(net.forward()["x"], expected)
    net.blobs["x"].diff[...] = 1
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, expected)


def test_dropout_draws_anew_for_each_pass_seed_and_layer():
    net = dropout()
    first = net.forward(x=ONES)["y"].copy()
    others = [
        net.forward(x=ONES)["y"],
        dropout(seed=2).forward(x=ONES)["y"],
        dropout(name="other").forward(x=ONES)["y"],
    ]
    for other in others:
        assert (first == other).mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(dropout().forward(x=ONES)["y"], first)


def test_dropout_goes_on_after_a_resume_as_if_never_stopped():
    net = dropout()
    net.forward(x=ONES)
    states = net.layer_states()
    expected = net.forward(x=ONES)["y"]
    resumed = dropout()
    resumed.set_layer_states(states)
    np.testing.assert_array_equal(resumed.forward(x=ONES)["y"], expected)


def test_dropout_depends_neither_on_threads_nor_on_precision():
    expected, before = dropout().forward(x=ONES)["y"], num_threads()
    try:
        for threads in (1, 3):
            set_num_threads(threads)
            np.testing.assert_array_equal(dropout().forward(x=ONES)["y"], expected)
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(dropout(dtype=np.float64).forward(x=ONES)["y"], expected)
