"""The nets of the models folder, with weights of which a part is zero; what OpenCV makes of a net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.input_layers import is_source
from sslnet.net.net import Net

MODELS = Path(__file__).parents[2] / "models"
SLOW = {"alexnet", "caffenet", "vgg16"}
BLOCKS = {"resnet20": "res3b_branch2b", "resnet32": "res2c_branch2b", "resnet56": "res4e_branch2b"}
"""Where such a net has them: the last convolution of a residual block, to be zero."""
GONE = 1 / 3


def light(name: str, heavy: set[str] = SLOW) -> object:
    """The name as a parameter of a test, marked as slow where it is heavy."""
    return pytest.param(name, marks=[pytest.mark.slow] if name in heavy else [])


def prune(net: Net, whole: set[str]) -> None:
    """Normal numbers, a third of the rows zero and a third of the columns of the others; layers in ``whole`` keep their rows."""
    random = np.random.default_rng(0)
    for param in net.learnable:
        blob = param.blob.data
        if param.layer.TYPE == "BatchNorm":
            blob[...] = 0 if param.index == 0 else 1
        elif blob.ndim > 1:
            blob[...] = random.standard_normal(blob.shape, np.float32) * np.float32((2 / blob[0].size) ** 0.5)
            matrix = blob.reshape(len(blob), -1)
            if param.layer.name not in whole:
                matrix[random.permutation(len(matrix))[: int(GONE * len(matrix))]] = 0
            matrix[:, random.permutation(matrix.shape[1])[: int(GONE * matrix.shape[1])]] = 0


NAMES = sorted(path.parent.name for path in MODELS.glob("*/deploy.prototxt") if path.parent.name != "mobilenet_ssd")
"""Classifiers: a detector has other labels, and boxes for outputs."""


def with_dummy_data(name: str) -> prototxt.Definition:
    """The definition for training, with two random images in the place of what its sources read."""
    deploy = Net(prototxt.read_net(str(MODELS / name / "deploy.prototxt")))
    shape = (2, *deploy.blobs[deploy.inputs[0]].shape[1:])
    (path,) = (path for path in (MODELS / name).glob("train_*.prototxt"))
    message = prototxt.read_net(str(path)).message
    for layer in message.layer:
        if is_source(layer):
            dummy = pb.LayerParameter(name=layer.name, type="DummyData", top=layer.top)
            dummy.include.extend(layer.include)
            for index in range(len(layer.top)):
                dummy.dummy_data_param.shape.add().dim.extend(shape if index == 0 else shape[:1])
                dummy.dummy_data_param.data_filler.add(type="uniform" if index == 0 else "constant")
            layer.CopyFrom(dummy)
    return prototxt.Definition(message)


def ends(net: Net) -> set[str]:
    """Layers with weights that no layer reads which shrinks: their rows are what the net gives."""
    readers = {
        bottom for layer in net.layers if layer.SHRINKS and layer.TYPE != "Split" for bottom in layer.param.bottom
    }
    splits = {
        top
        for layer in net.layers
        if layer.TYPE == "Split" and readers & set(layer.param.top)
        for top in layer.param.bottom
    }
    return {layer.name for layer in net.layers if layer.blobs and not (readers | splits) & set(layer.param.top)}


def deploy_net(name: str, images: int) -> tuple[prototxt.Definition, Net]:
    """The definition for deployment, for a batch of so many images, and its net, pruned, with a block of zeros where it has blocks."""
    definition = prototxt.read_net(str(MODELS / name / "deploy.prototxt"))
    for layer in definition.message.layer:
        if is_source(layer):
            layer.input_param.shape[0].dim[0] = images
    net = Net(definition, seed=0)
    prune(net, ends(net))
    if name in BLOCKS:
        net.params[BLOCKS[name]][0].data[...] = 0
    return definition, net


def opencv_outputs(net: Net, data: np.ndarray, folder: Path, more: list[str] | None = None) -> dict[str, np.ndarray]:
    """The outputs, and more blobs by name, of a net with one input, written to files and read by OpenCV.

    raises ImportError without OpenCV
    """
    import cv2

    prototxt.save(net.definition.message, str(folder / "net.prototxt"))
    (folder / "net.caffemodel").write_bytes(net.to_proto().SerializeToString())
    read = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
    read.setInput(data, net.inputs[0])
    result = {}
    for blob in [*net.outputs, *(more or [])]:
        (*_, layer) = (layer for layer, tops in zip(net.layer_names, net.top_names) if blob in tops)
        result[blob] = read.forward(layer).reshape(net.blobs[blob].shape)
    return result
