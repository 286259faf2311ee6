"""Every net of the models folder, a third of its filters and columns zero and a block with them, compacts to the same net.

The large ones are marked as slow.
"""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.net.net import Net

from ..support.model_nets import BLOCKS, NAMES, SLOW, deploy_net, ends, light, prune, with_dummy_data


@pytest.mark.parametrize("name", [light(name, SLOW | {"googlenet", "resnet56"}) for name in NAMES])
def test_model_for_training_compacts_in_both_phases(name: str) -> None:
    definition = with_dummy_data(name)
    net = Net(definition, phase=pb.TRAIN, seed=0)
    prune(net, ends(net))
    block = BLOCKS.get(name)
    if block:
        net.params[block][0].data[...] = 0
    weights = net.to_proto()
    result = compact(definition, weights)
    assert result.difference.relative <= 1e-4
    assert not any("could not be built" in note for note in result.notes)
    assert result.weights.ByteSize() < 0.8 * weights.ByteSize()
    assert not block or block not in {layer.name for layer in result.message.layer}
    small = Net(result.message, result.weights, pb.TRAIN, seed=0)
    small.forward()
    assert np.isfinite(small.loss)


@pytest.mark.parametrize("name", [light(name) for name in NAMES])
def test_model_with_a_third_of_its_filters_and_columns_compacts(name: str) -> None:
    definition, net = deploy_net(name, 1)
    block = BLOCKS.get(name)
    weights = net.to_proto()
    result = compact(definition, weights)
    assert result.difference.relative <= 1e-4
    assert any(blob.largest > 0 for blob in result.difference.blobs)
    assert result.weights.ByteSize() < 0.8 * weights.ByteSize()
    if block:
        left = {layer.name for layer in result.message.layer}
        assert block not in left and block.replace("2b", "2a") not in left and block.split("_")[0] not in left
