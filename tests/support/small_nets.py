"""The small nets that many tests use, built with ``NetSpec``: data, convolutions, one InnerProduct, a loss.

conv_net({"conv1": dict(num_output=6, kernel_size=3)}, classes=2)       the definition, a pb.NetParameter
write_net(folder, conv_net(...))                                        as a file, with weights from its fillers
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sslnet import NetSpec, prototxt
from sslnet import layers as L
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

XAVIER = {"type": "xavier"}
NORMAL = {"type": "gaussian", "std": 1}
ONE = {"type": "constant", "value": 1}


def conv_net(
    convolutions: Mapping[str, Mapping[str, Any]],
    *,
    classes: int = 2,
    shape: tuple[int, ...] = (3, 2, 6, 6),
    rectified: Collection[str] = (),
    data: Mapping[str, Any] | None = None,
) -> pb.NetParameter:
    """Random images, the convolutions one behind the other, "ip" with the scores, "loss" (SoftmaxWithLoss).

    convolutions  {name: fields}; 3 x 3 with xavier weights where the fields say nothing else
    shape         of the images (batch, channels, height, width); all labels are 1
    rectified     convolutions with a ReLU in place behind them: that of conv1 is called relu1
    data          more fields of the data layer
    """
    net = NetSpec()
    fields = {"shape": [{"dim": list(shape)}, {"dim": [shape[0]]}], "data_filler": [NORMAL, ONE], **(data or {})}
    net.data, net.label = L.DummyData(ntop=2, **fields)
    top = net.data
    for name, more in convolutions.items():
        top = net[name] = L.Convolution(top, **{"kernel_size": 3, "weight_filler": XAVIER, **more})
        if name in rectified:
            top = net[name.replace("conv", "relu")] = L.ReLU(top, in_place=True)
    net.ip = L.InnerProduct(top, num_output=classes, weight_filler=XAVIER)
    net.loss = L.SoftmaxWithLoss(net.ip, net.label)
    message: pb.NetParameter = net.to_proto()
    message.name = "tiny"
    return message


def write_net(
    folder: Path, message: pb.NetParameter, change: Callable[[Net], None] = lambda net: None
) -> tuple[Path, Path]:
    """Writes net.prototxt and w.caffemodel, and returns their names.

    change  called with the net before its weights are written, which its fillers have drawn with seed 0
    """
    model, weights = folder / "net.prototxt", folder / "w.caffemodel"
    prototxt.save(message, model)
    net = Net(model, seed=0)
    change(net)
    net.save(weights)
    return model, weights


def renamed(message: pb.NetParameter, **names: str) -> pb.NetParameter:
    """A copy in which these layers have other names: ``renamed(net, ip="other")``; their blobs keep theirs."""
    result = pb.NetParameter()
    result.CopyFrom(message)
    for layer in result.layer:
        layer.name = names.get(layer.name, layer.name)
    return result


def images(count: int, shape: tuple[int, ...] = (2, 6, 6), seed: int = 0) -> np.ndarray:
    """Normal numbers, (count, channels, height, width)."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
