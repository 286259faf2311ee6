"""Chains of layers in place of one: which layers can be replaced, the definition of a chain, and the weights file.

The last of the layers that replace a layer has its name, bias and rates; those before it are called NAME_basis and, where
there are three, NAME_core.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.low_rank.factors import Stage, Weights
from sslnet.layers.base import Layer
from sslnet.layers.convolution import Convolution
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.blob_arrays import blob_proto
from sslnet.net.net import Net
from sslnet.net.weights import Arrays

SUFFIXES = {2: ("_basis",), 3: ("_basis", "_core")}
"""Of the names of the layers before the last, by the number of layers."""


def refusal(layer: Layer, shared: set[str]) -> str:
    """Reason why a layer cannot be factored; empty if it can."""
    if not layer.LOW_RANK:
        return f"it is of type {layer.TYPE}"
    if layer.name in shared:
        return "it shares its parameters with another layer"
    if isinstance(layer, Convolution) and (layer.blobs[0].num_axes != 4 or layer.axis != 1):
        return "only convolutions over images, two axes, are factored"
    if isinstance(layer, InnerProduct) and layer.transpose:
        return "its weights are transposed"
    return ""


def shared_layers(net: Net) -> set[str]:
    """Names of the layers that share a parameter with another layer."""
    seen: dict[str, str] = {}
    result: set[str] = set()
    for layer in net.layers:
        for spec in layer.param.param:
            if spec.name and seen.setdefault(spec.name, layer.name) != layer.name:
                result |= {layer.name, seen[spec.name]}
    return result


def weights_of(layer: Any, shape: tuple[int, ...]) -> Weights:
    """The weights of a Convolution or InnerProduct whose bottom has this shape."""
    array = layer.blobs[0].data
    if isinstance(layer, InnerProduct):
        return Weights(array)
    w = layer.window
    return Weights(array, layer.group, w.stride, w.pad, w.dilation, (shape[2], shape[3]), w.pad_end)


def chain(layer: pb.LayerParameter, stages: list[Stage], names: list[str]) -> Iterator[pb.LayerParameter]:
    """The layers that replace a layer, one for each stage, in order; each reads the one before it."""
    bottom = layer.bottom[0]
    for stage, name in zip(stages, names):
        new, last = pb.LayerParameter(), name == names[-1]
        new.CopyFrom(layer)
        del new.blobs[:]
        new.name, new.bottom[:] = name, [bottom]
        is_conv = layer.HasField("convolution_param")
        param = new.convolution_param if is_conv else new.inner_product_param
        param.num_output = len(stage.array)
        if not last:
            new.ClearField("loss_weight")
            new.top[:] = [name]
            del new.param[1:]
            param.bias_term = False
            param.ClearField("bias_filler")
        if is_conv:
            set_window(new.convolution_param, stage)
        bottom = new.top[0]
        yield new


def set_window(param: pb.ConvolutionParameter, stage: Stage) -> None:
    """Sets the window of a stage, and its groups where it has its own. With pad_type SAME the padding of each stage
    follows from its own window, too."""
    sides = [f"{name}_{side}" for name in ("kernel", "stride", "pad") for side in "hw"]
    for name in ("kernel_size", "stride", "pad", "dilation", *sides):
        param.ClearField(name)
    for name, (h, w), default in (
        ("kernel_size", stage.kernel, None),
        ("stride", stage.stride, 1),
        ("pad", stage.pad, 0),
        ("dilation", stage.dilation, 1),
    ):
        if name == "pad" and param.pad_type == pb.ConvolutionParameter.SAME:
            continue
        if (h, w) != (default, default):
            getattr(param, name).extend([h] if h == w else [h, w])
    if stage.group is not None:
        param.ClearField("group")
        if stage.group > 1:
            param.group = stage.group


def weights_message(message: pb.NetParameter, arrays: Arrays) -> pb.NetParameter:
    """The weights file of a definition: each layer that has arrays once, with its blobs."""
    result = pb.NetParameter(name=message.name)
    left = dict(arrays)
    for layer in message.layer:
        if layer.name in left:
            blobs = (blob_proto(np.ascontiguousarray(array, np.float32)) for array in left.pop(layer.name))
            result.layer.add(name=layer.name, type=layer.type).blobs.extend(blobs)
    return result
