"""Random graphs with random zeros: the compacted net computes what the pruned net computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.errors import RunError
from sslnet.net.net import Net

from ..support.random_graphs import fill_param, graphs


def prune(net: Net, random: np.random.Generator) -> None:
    """Normal numbers everywhere, then zero rows and columns, never all; the biases of some convolutions are zero.

    Now and then a convolution is zero altogether, a branch that carries nothing, or the scales behind a BatchNorm are.
    Inner products keep theirs, so that no output is a small difference of large numbers, which rounding alone changes.
    """
    for param in net.learnable:
        fill_param(param, random)
        blob = param.blob.data
        if param.layer.TYPE == "BatchNorm":
            continue
        if blob.ndim > 1:
            for axis in (0, 1):
                gone = random.permutation(blob.shape[axis])[: int(random.uniform(0, 0.7) * blob.shape[axis])]
                blob[gone if axis == 0 else (slice(None), gone)] = 0
            if param.layer.TYPE != "InnerProduct" and random.random() < 0.12:
                blob[...] = 0
        elif param.layer.TYPE in ("Convolution", "Deconvolution") and random.random() < 0.3:
            blob[...] = 0
        elif param.layer.TYPE in ("Scale", "Bias", "Normalize") and blob.ndim == 1:
            blob[random.random(blob.shape) < 0.3] = 0
            blob[...] *= random.random() < 0.9


EXAMPLES = int(os.environ.get("SSLNET_TEST_EXAMPLES", "60"))
"""Thousands, with SSLNET_TEST_RANDOM, to look for what nobody has thought of."""


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(message=graphs(), seed=st.integers(0, 2**32 - 1))
def test_compacted_random_net_equals_the_pruned_net(
    message: Any, seed: int, outputs_agree: Callable[[Any, Any, Any, Any], None]
) -> None:
    net = Net(message, seed=0)
    prune(net, np.random.default_rng(seed))
    weights = net.to_proto()
    try:
        result = compact(prototxt.parse(prototxt.write(message), pb.NetParameter), weights)
    except RunError as error:
        assert "would lose every channel" in error.message
        assume(False)
    outputs_agree(message, weights, result.message, result.weights)
    if any(layer.include for layer in message.layer):
        train = Net(result.message, result.weights, pb.TRAIN, seed=0)
        train.forward()
        train.backward()
