"""OpenCV reads what ``compact`` writes with ``standard_only`` and computes the same; needs opencv-python-headless.

The large nets are marked as slow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.net.input_layers import is_source
from sslnet.net.net import Net

from ..support.model_nets import (
    BLOCKS,
    MODELS,
    NAMES,
    SLOW,
    deploy_net,
    ends,
    light,
    opencv_outputs,
    prune,
    with_dummy_data,
)

pytest.importorskip("cv2")

HEAVY = SLOW | {"googlenet", "mobilenet", "nin", "resnet32", "resnet56", "squeezenet"}
TOLERANCE = 1e-4
"""Of the largest magnitude: OpenCV adds up in another order, and multiplies weights of neighbouring layers beforehand."""
FLOOR_POOLING = {"resnet20", "resnet32", "resnet56"}
"""Their definitions as they stand have round_mode, which OpenCV does not know."""


def assert_opencv_agrees(message: Any, weights: Any, tmp_path: Path) -> None:
    """OpenCV reads the two files and gives the same outputs as sslnet, before a softmax at the end as well."""
    net = Net(message, weights)
    (name,) = net.inputs
    data = np.random.default_rng(3).standard_normal(net.blobs[name].shape, np.float32)
    last = [name for name in net.layers[-1].param.bottom if net.layers[-1].TYPE == "Softmax"]
    expected = {blob: array.copy() for blob, array in net.forward(last, **{name: data}).items()}
    for blob, found in opencv_outputs(net, data, tmp_path, last).items():
        assert np.abs(expected[blob]).max() > 0
        assert np.abs(found - expected[blob]).max() <= TOLERANCE * np.abs(expected[blob]).max(), blob


def randomise(net: Net) -> None:
    """Normal numbers for all weights, statistics of BatchNorm as of data; what is zero stays zero, biases do not."""
    random = np.random.default_rng(5)
    for param in net.learnable:
        blob = param.blob.data
        if param.layer.TYPE == "BatchNorm":
            mean, variance = random.normal(0, 0.1, blob.shape), random.uniform(0.5, 2, blob.shape)
            blob[...] = (mean, variance, 1)[param.index]
        elif blob.ndim > 1:
            drawn = random.standard_normal(blob.shape, np.float32) * np.float32((2 / blob[0].size) ** 0.5)
            blob[...] = drawn * (blob != 0)
        else:
            factors = param.layer.TYPE == "Scale" and param.index == 0
            blob[...] = random.uniform(0.5, 1.5, blob.shape) if factors else random.normal(0, 0.1, blob.shape)


@pytest.mark.parametrize("name", [light(name, HEAVY) for name in NAMES])
def test_dense_model_gives_the_same_in_opencv(name: str, tmp_path: Path) -> None:
    definition = prototxt.read_net(str(MODELS / name / "deploy.prototxt"))
    for layer in definition.message.layer:
        if is_source(layer):
            layer.input_param.shape[0].dim[0] = 2
    net = Net(definition, seed=0)
    for param in net.learnable:
        param.blob.data[...] = 1
    randomise(net)
    weights = net.to_proto()
    if name not in FLOOR_POOLING:
        assert_opencv_agrees(definition.message, weights, tmp_path)
        return
    result = compact(definition, weights, standard_only=True)
    assert [layer for layer in result.layers if layer.after.parameters < layer.before.parameters] == []
    assert_opencv_agrees(result.message, result.weights, tmp_path)


@pytest.mark.parametrize("name", [light(name, HEAVY) for name in NAMES])
def test_compacted_model_gives_the_same_in_opencv(name: str, tmp_path: Path) -> None:
    definition, net = deploy_net(name, 2)
    randomise(net)
    weights = net.to_proto()
    result = compact(definition, weights, standard_only=True)
    assert result.weights.ByteSize() < 0.8 * weights.ByteSize()
    assert_opencv_agrees(result.message, result.weights, tmp_path)


@pytest.mark.parametrize("name", [light(name, HEAVY) for name in NAMES])
def test_model_for_training_is_deployed_to_opencv(name: str, tmp_path: Path) -> None:
    definition = with_dummy_data(name)
    net = Net(definition, seed=0)
    prune(net, ends(net))
    if name in BLOCKS:
        net.params[BLOCKS[name]][0].data[...] = 0
    randomise(net)
    for layer in definition.message.layer:
        if layer.type == "Convolution":
            layer.convolution_param.conv_mode = pb.ConvolutionParameter.AUTO
            layer.connectivity_mode = pb.DISCONNECTED_ELTWISE
            (layer.param or [layer.param.add()])[0].group_lasso.add(group=pb.GroupLassoSpec.FILTER)
    result = compact(definition, net.to_proto(), standard_only=True)
    assert_opencv_agrees(result.deploy, result.weights, tmp_path)


INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 8 } } }'


def conv(name: str, bottom: str, filters: int, more: str = "kernel_size: 3 pad: 1") -> str:
    return f'''layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
      convolution_param {{ num_output: {filters} {more} }} }}'''


def test_map_behind_a_convolution_is_read_by_opencv(make_net: Callable[..., Net], tmp_path: Path) -> None:
    """A branch that became constant, but not the same everywhere, and what it adds to right behind a convolution."""
    text = "\n".join(
        (
            INPUT,
            conv("stem", "data", 4),
            conv("a", "stem", 5),
            conv("b", "a", 4),
            'layer { name: "sum" type: "Eltwise" bottom: "stem" bottom: "b" top: "sum" }',
            conv("c", "sum", 3),
        )
    )
    net = make_net(text)
    net.params["a"][0].data[...] = 0
    result = compact(prototxt.parse(text, pb.NetParameter), net.to_proto(), standard_only=True)
    assert result.maps == ["sum"]
    assert [layer.type for layer in result.message.layer] == ["Input", "Convolution", "Silence", "Scale", "Convolution"]
    assert_opencv_agrees(result.message, result.weights, tmp_path)


@pytest.mark.parametrize("kind", ["DepthwiseConvolution", "ConvolutionDepthwise"])
def test_depthwise_type_becomes_a_convolution(kind: str, make_net: Callable[..., Net], tmp_path: Path) -> None:
    depthwise = conv("b", "a", 6).replace('"Convolution"', f'"{kind}"')
    text = "\n".join((INPUT, conv("a", "data", 6), depthwise, conv("c", "b", 3)))
    net = make_net(text)
    net.params["a"][0].data[1:3] = net.params["a"][1].data[1:3] = net.params["b"][1].data[1:3] = 0
    result = compact(prototxt.parse(text, pb.NetParameter), net.to_proto(), standard_only=True)
    assert (result.message.layer[2].type, result.message.layer[2].convolution_param.group) == ("Convolution", 4)
    assert_opencv_agrees(result.message, result.weights, tmp_path)


FLOORS = {
    "kernel_size: 3 stride: 2": (9, 9, True),
    "kernel_size: 2 stride: 2": (8, 9, False),
    "kernel_size: 1 stride_h: 2 stride_w: 3": (9, 8, True),
    "global_pooling: true": (9, 8, True),
}
"""Pooling with round_mode FLOOR: height and width of the image, and whether it can be said without."""


@pytest.mark.parametrize("pooling", FLOORS)
@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_round_mode_goes_where_it_can(pooling: str, method: str, make_net: Callable[..., Net], tmp_path: Path) -> None:
    height, width, goes = FLOORS[pooling]
    data = INPUT.replace("dim: 9 dim: 8", f"dim: {height} dim: {width}")
    pool = f"""layer {{ name: "pool" type: "Pooling" bottom: "a" top: "pool"
      pooling_param {{ pool: {method} {pooling} round_mode: FLOOR }} }}"""
    text = "\n".join((data, conv("a", "data", 6), pool, conv("c", "pool", 3)))
    net = make_net(text)
    net.params["a"][0].data[1:3] = net.params["a"][1].data[1:3] = 0
    result = compact(prototxt.parse(text, pb.NetParameter), net.to_proto(), standard_only=True)
    assert ("round_mode" in str(result.message)) is not goes
    assert [note for note in result.notes if "pool" in note and "round_mode FLOOR" in note] == result.notes
    assert len(result.notes) == (not goes)
    if goes:
        assert_opencv_agrees(result.message, result.weights, tmp_path)
