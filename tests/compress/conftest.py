"""Nets for the tests of compaction, made from text, with weights that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net


@pytest.fixture
def make_net() -> Callable[..., Net]:
    """make_net(text, phase=TEST): a net whose every parameter is drawn from a normal distribution (seed 0)."""

    def make(text: str, phase: int = pb.TEST) -> Net:
        net = Net(prototxt.parse(text, pb.NetParameter), phase=phase, seed=0)
        random = np.random.default_rng(0)
        for param in net.learnable:
            param.blob.data[...] = random.standard_normal(param.blob.shape)
        return net

    return make


def random_input(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers; for inputs of these names 0, 1 or 2 (words, labels), 0 or 1 (cont)."""
    most = {"words": 3, "label": 3, "cont": 2}.get(name.rstrip("0123456789"))
    return random.standard_normal(shape) if most is None else random.integers(0, most, shape)


@pytest.fixture
def outputs_agree() -> Callable[[Any, Any, Any, Any], None]:
    """Fails unless both nets (definition message, weights) give the same outputs on the same random inputs, three times."""

    def agree(message: Any, weights: Any, small: Any, small_weights: Any) -> None:
        first, second = Net(message, weights, seed=0), Net(small, small_weights, seed=0)
        assert first.outputs == second.outputs
        random = np.random.default_rng(7)
        for _ in range(3):
            inputs = {name: random_input(random, name, first.blobs[name].shape) for name in first.inputs}
            expected = {name: data.copy() for name, data in first.forward(**inputs).items()}
            for name, data in second.forward(**inputs).items():
                scale = np.abs(expected[name]).max()
                np.testing.assert_allclose(data, expected[name], rtol=0, atol=1e-5 * max(scale, 1e-30), err_msg=name)

    return agree
