"""Nets for the tests of compaction, made from text, with weights that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

from ..support.compare import assert_same_outputs


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


@pytest.fixture
def outputs_agree() -> Callable[[Any, Any, Any, Any], None]:
    """Fails unless both nets (definition message, weights) give the same outputs on the same random inputs."""

    def agree(message: Any, weights: Any, small: Any, small_weights: Any) -> None:
        assert_same_outputs(Net(message, weights, seed=0), Net(small, small_weights, seed=0))

    return agree
