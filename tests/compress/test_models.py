"""Every net of the models folder, a third of its filters and columns zero and a block with them, compacts to the same net.

The three large ones run with SSLNET_TEST_SLOW in the environment.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet.compress import compact
from sslnet.inputs import is_source
from sslnet.net import Net

MODELS = Path(__file__).parents[2] / "models"
SLOW = {"alexnet", "caffenet", "vgg16"}
BLOCKS = {"resnet20": "res3b_branch2b", "resnet32": "res2c_branch2b", "resnet56": "res4e_branch2b"}
"""Where such a net has them: the last convolution of a residual block, to be zero."""
GONE = 1 / 3


def light(name: str) -> object:
    slow = name in SLOW and not os.environ.get("SSLNET_TEST_SLOW")
    return pytest.param(name, marks=pytest.mark.skipif(slow, reason="set SSLNET_TEST_SLOW to run it"))


def prune(net: Net, ends: set[str]) -> None:
    """Normal numbers, a third of the rows zero and a third of the columns of the others; layers in ``ends`` keep their rows."""
    random = np.random.default_rng(0)
    for param in net.learnable:
        blob = param.blob.data
        if param.layer.TYPE == "BatchNorm":
            blob[...] = 0 if param.index == 0 else 1
        elif blob.ndim > 1:
            blob[...] = random.standard_normal(blob.shape, np.float32) * np.float32((2 / blob[0].size) ** 0.5)
            matrix = blob.reshape(len(blob), -1)
            if param.layer.name not in ends:
                matrix[random.permutation(len(matrix))[: int(GONE * len(matrix))]] = 0
            matrix[:, random.permutation(matrix.shape[1])[: int(GONE * matrix.shape[1])]] = 0


@pytest.mark.parametrize("name", [light(path.name) for path in sorted(MODELS.iterdir()) if path.is_dir()])
def test_model_with_a_third_of_its_filters_and_columns_compacts(name: str) -> None:
    definition = prototxt.read_net(str(MODELS / name / "deploy.prototxt"))
    for layer in definition.message.layer:
        if is_source(layer):
            layer.input_param.shape[0].dim[0] = 1
    net = Net(definition, seed=0)
    readers = {bottom for layer in net.layers if layer.SHRINKS for bottom in layer.param.bottom}
    prune(net, {layer.name for layer in net.layers if layer.blobs and not readers & set(layer.param.top)})
    block = BLOCKS.get(name)
    if block:
        net.params[block][0].data[...] = 0
    weights = net.to_proto()
    result = compact(definition, weights)
    assert result.difference.relative <= 1e-4
    assert any(blob.largest > 0 for blob in result.difference.blobs)
    assert result.weights.ByteSize() < 0.8 * weights.ByteSize()
    if block:
        left = {layer.name for layer in result.message.layer}
        assert block not in left and block.replace("2b", "2a") not in left and block.split("_")[0] not in left
