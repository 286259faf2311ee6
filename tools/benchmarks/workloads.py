"""The nets that are timed: models of this repository with random data instead of their databases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.input_layers import with_inputs
from sslnet.net.net import Net

MODELS = Path(__file__).resolve().parents[2] / "models"


@dataclass(frozen=True)
class Workload:
    """A model, how many images at once, and how fast it must be: our time by torch's."""

    title: str
    model: str
    batch: int
    must: float
    aim: float
    caffe: float | None = None
    """Milliseconds of the iteration with Caffe 1.0 and OpenBLAS on two threads of such a machine."""

    @property
    def name(self) -> str:
        return f"{self.model}-b{self.batch}"


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("LeNet", "lenet", 64, 0.8, 0.5, 34),
        Workload("CIFAR-10 full", "cifar10_full", 100, 0.8, 0.5, 427),
        Workload("ResNet-20", "resnet20", 128, 0.8, 0.5, 2223),
        Workload("AlexNet", "alexnet", 16, 1.0, 0.7),
        Workload("AlexNet", "alexnet", 32, 1.0, 0.7, 2403),
        Workload("CaffeNet", "caffenet", 32, 1.0, 0.7, 2053),
        Workload("GoogLeNet", "googlenet", 8, 1.0, 0.7, 1827),
        Workload("MobileNet", "mobilenet", 8, 1.0, 0.7),
        Workload("SqueezeNet", "squeezenet", 8, 1.0, 0.7),
        Workload("VGG-16", "vgg16", 8, 1.0, 0.7),
    )
}


def open_net(model: str, batch: int, phase: int, *, dropout: bool = True, lean: bool = False, seed: int = 1) -> Net:
    """The net of a model with Input layers, its weights from its fillers, random numbers and labels in its inputs."""
    (path,) = (MODELS / model).glob("train_*.prototxt")
    definition = prototxt.read_net(str(path))
    if not dropout:
        for layer in definition.message.layer:
            if layer.type == "Dropout":
                layer.dropout_param.dropout_ratio = 0
    shapes = {"data": (batch, *image_shape(model)), "label": (batch,)}
    net = Net(with_inputs(definition, shapes), phase=phase, seed=seed, lean=lean)
    random = np.random.default_rng(seed)
    net.blobs["data"].data[...] = random.standard_normal(shapes["data"], np.float32)
    net.blobs["label"].data[...] = random.integers(0, classes(net), batch)
    return net


def deploy_net(model: str, batch: int, seed: int = 1) -> Net:
    """The net for inference of a model, as ``sslnet.Predictor`` makes it, with that many images of random numbers."""
    definition = prototxt.read_net(str(MODELS / model / "deploy.prototxt"))
    net = Net(with_inputs(definition, {"data": (batch, *image_shape(model))}), phase=pb.TEST, seed=seed, lean=True)
    fill_parameters(net, seed)
    net.blobs["data"].data[...] = np.random.default_rng(seed).standard_normal(net.blobs["data"].shape, np.float32)
    return net


def fill_parameters(net: Net, seed: int = 1) -> None:
    """Random parameters of a usual size, for nets that have no fillers: zeros would be found, and left out."""
    random = np.random.default_rng(seed)
    for layer in net.layers:
        if layer.TYPE == "BatchNorm":  # sums of means and of variances, and how many they are
            mean, variance, factor = (blob.data for blob in layer.blobs)
            mean[...] = 0.1 * random.standard_normal(mean.shape, np.float32)
            variance[...], factor[...] = random.uniform(0.5, 1.5, variance.shape), 1
            continue
        for index, blob in enumerate(layer.blobs):
            noise = random.standard_normal(blob.shape, np.float32)
            if index > 0:
                blob.data[...] = 0.1 * noise
            elif len(blob.shape) == 1:  # a Scale
                blob.data[...] = 1 + 0.1 * noise
            else:
                np.multiply(noise, math.sqrt(2 / math.prod(blob.shape[1:])), out=blob.data)


def image_shape(model: str) -> tuple[int, ...]:
    """(channels, height, width) of an image of the net for inference."""
    message = prototxt.read_net(str(MODELS / model / "deploy.prototxt")).message
    inputs: list[Any] = [layer.input_param.shape[0] for layer in message.layer if layer.type == "Input"]
    return tuple((inputs or message.input_shape)[0].dim)[1:]


def classes(net: Net) -> int:
    """The number of classes of the net's loss."""
    found = [bottoms[0] for layer, bottoms in zip(net.layers, net.bottoms) if layer.TYPE == "SoftmaxWithLoss"]
    return found[-1].shape[1]
