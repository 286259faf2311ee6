"""Random graphs pruned by every criterion: compaction gives the net with those channels zeroed, least squares never errs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.compress.compaction.compact import compact
from sslnet.compress.pruning.calibration import CalibrationSet
from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.compress.pruning.importance import IMPORTANCES
from sslnet.compress.pruning.prune_channels import Pruner, PruneResult
from sslnet.errors import RunError, UsageError
from sslnet.net.input_layers import fill_inputs
from sslnet.net.net import Net
from sslnet.sparsity.channel_dependencies import mixes

from ..support.compare import assert_same_outputs
from ..support.random_graphs import fill_param, graphs

EXAMPLES = int(os.environ.get("SSLNET_TEST_EXAMPLES", "40"))


def images_for(net: Net, count: int, seed: int) -> CalibrationSet:
    """Random images, and zeros for all further inputs."""
    random = np.random.default_rng(seed)
    arrays = {
        name: np.zeros((count, *net.blobs[name].shape[1:]), np.float32)
        if index
        else random.standard_normal((count, *net.blobs[name].shape[1:])).astype(np.float32)
        for index, name in enumerate(net.inputs)
    }
    return CalibrationSet(arrays)


def prune(message: Any, by: str, seed: int, repair: str, share_out: str) -> tuple[Net, Net, PruneResult]:
    """The whole net and the pruned one; assumes a graph that this can be done to."""
    net = Net(message, seed=0)
    random = np.random.default_rng(seed)
    for param in net.learnable:
        fill_param(param, random)
    weights = net.to_proto()
    try:
        pruner = Pruner(net, images=images_for(net, 6, seed), seed=seed)
        if by == "bn_scale":
            IMPORTANCES[by]().start(pruner.channels)
        result = pruner.prune(target_flops=0.6, by=by, repair=repair, share_out=share_out, floor=0.0)
    except UsageError as error:
        words = ("no channels", "cannot be reached", "bn_scale needs", "do not fit")
        assert any(word in error.message for word in words), error.message
        assume(False)
    whole = Net(message, weights, seed=0)
    return whole, net, result


def masked_outputs(net: Net, channels: CoupledChannels, gone: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of the whole net, one layer after the other; nothing is made of, or read from, the removed channels."""
    flags = np.append(gone, False)

    def without(blob: Blob, units: np.ndarray) -> None:
        if blob.num_axes > 1 and len(units) == blob.shape[1]:
            blob.data[:, flags[units]] = 0

    for i, layer in enumerate(net.layers):
        bottoms = list(net.bottoms[i])
        if layer.blobs and mixes(layer) and bottoms:
            bottoms[0] = Blob(bottoms[0].shape, name="masked")
            bottoms[0].data[...] = net.bottoms[i][0].data
            without(bottoms[0], channels.bottoms[i])
        in_place = net.tops[i] and net.bottoms[i] and net.tops[i][0] is net.bottoms[i][0]
        layer.forward(net.bottoms[i] if in_place else bottoms, net.tops[i])
        if layer.blobs:
            without(net.tops[i][0], channels.tops[i])
    return {name: net.blobs[name].data.copy() for name in net.outputs}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    message=graphs(),
    seed=st.integers(0, 2**32 - 1),
    by=st.sampled_from(sorted(IMPORTANCES)),
    share_out=st.sampled_from(["uniform", "flops", "sensitivity"]),
)
def test_pruned_and_compacted_net_is_the_net_with_those_channels_zeroed(
    message: Any, seed: int, by: str, share_out: str
) -> None:
    if IMPORTANCES[by].NEEDS.name == "GRADIENTS":
        last = [layer for layer in message.layer if layer.type == "InnerProduct"][-1:]
        assume(bool(last) and not any(layer.include for layer in message.layer))
        last[0].loss_weight.append(1)
    whole, net, result = prune(message, by, seed, "none", share_out)
    assert result.gone.any() and result.flops <= 0.6
    fill_inputs(whole, seed)
    inputs = {name: whole.blobs[name].data.copy() for name in whole.inputs}
    wanted = masked_outputs(whole, result.channels, result.gone)
    found = {name: values.copy() for name, values in net.forward(**inputs).items()}
    for name, values in wanted.items():
        scale = max(np.abs(values).max(initial=0), 1e-3)
        np.testing.assert_allclose(found[name], values, atol=2e-5 * scale, rtol=0)
    weights = net.to_proto()
    try:
        small = compact(prototxt.parse(prototxt.write(message), pb.NetParameter), weights)
    except RunError as error:
        assert "would lose every channel" in error.message
        assume(False)
    assert_same_outputs(Net(message, weights, seed=0), Net(small.message, small.weights, seed=0))
    before = sum(layer.before.flops for layer in small.layers)
    assert sum(layer.after.flops for layer in small.layers) <= result.flops * before * 1.0001 + 1


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(message=graphs(), seed=st.integers(0, 2**32 - 1), by=st.sampled_from(["magnitude", "reconstruction", "random"]))
def test_least_squares_never_raises_the_calibration_error(message: Any, seed: int, by: str) -> None:
    _, net, result = prune(message, by, seed, "least-squares", "uniform")
    for layer in result.layers:
        assert 0 <= layer.after <= layer.before
    assert all(np.isfinite(blob.data).all() for layer in net.layers for blob in layer.blobs)
    flags = np.append(result.gone, False)
    for part in result.channels.parts:
        if part.role.value != "follower" and part.part.param.index == 0:
            assert not part.part.reduce(np.abs(part.part.param.blob.data))[flags[part.units]].any()
