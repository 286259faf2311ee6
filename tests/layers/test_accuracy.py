"""Accuracy against a count by hand; ties, ignored labels, classes without labels."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

from .harness import inputs


def accuracy(shape, labels, param="", tops=("acc",)) -> Net:
    tops = " ".join(f'top: "{name}"' for name in tops)
    text = f'layer {{ name: "a" type: "Accuracy" bottom: "x" bottom: "label" {tops} accuracy_param {{ {param} }} }}'
    return Net(prototxt.parse(inputs(x=shape, label=labels) + text, pb.NetParameter))


@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("axis", [1, -1, 2])
def test_accuracy_counts_labels_with_fewer_than_top_k_scores_as_high(axis, top_k):
    random = np.random.default_rng(3)
    x = random.integers(0, 4, (6, 5, 7)).astype(float)  # with ties
    moved = np.moveaxis(x, axis, -1)
    labels = random.integers(0, moved.shape[-1], moved.shape[:-1])
    right = [
        sum(score >= scores[label] for score in scores) - 1 < top_k
        for scores, label in zip(moved.reshape(-1, moved.shape[-1]), labels.ravel())
    ]
    net = accuracy(x.shape, labels.shape, f"axis: {axis} top_k: {top_k}")
    assert net.forward(x=x, label=labels)["acc"] == pytest.approx(np.mean(right))


def test_accuracy_of_each_class():
    net = accuracy((5, 4), (5,), "ignore_label: 3", ("acc", "each"))
    x = np.eye(4)[[0, 1, 0, 2, 3]]
    out = net.forward(x=x, label=np.array([0, 0, 0, 2, 3]))
    assert out["acc"] == pytest.approx(3 / 4)
    np.testing.assert_allclose(out["each"], [2 / 3, 0, 1, 0])


def test_accuracy_without_any_label_is_zero():
    net = accuracy((2, 3), (2,), "ignore_label: 1")
    assert net.forward(x=np.ones((2, 3)), label=np.ones(2))["acc"] == 0


def test_scores_that_are_not_numbers_are_not_right():
    net = accuracy((2, 3), (2,))
    x = np.full((2, 3), np.nan)
    x[1] = [0, 1, 2]
    assert net.forward(x=x, label=np.array([0, 2]))["acc"] == 0.5
