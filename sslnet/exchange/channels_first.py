"""Moves the channels of an imported net back to axis 1, where a model moves them to the end and back, as ConvNeXt does.

Between a Permute to (N, H, W, C) and those back to (N, C, H, W), element-wise layers do not care, a LayerNorm or Scale of the
last axis becomes one of axis 1, and an InnerProduct of the last axis a 1 x 1 convolution. The Permutes go; compaction then
finds the channels.
"""

from __future__ import annotations

from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.layers import LAYERS
from sslnet.layers.elementwise import Elementwise


def keep_channels_first(message: Any, outputs: set[str]) -> None:
    """Rewrites the regions of a net whose channels are on the last axis. message: pb.NetParameter, with blobs in its
    layers; outputs: blobs that keep their shape"""
    for layer in list(message.layer):
        order = list(layer.permute_param.order)
        count = len(order)
        if layer.type == "Permute" and count in (3, 4) and order == [0, *range(2, count), 1]:
            region = _region(message, layer.top[0], outputs, count)
            if region is not None:
                _rewrite(message, layer, region, count)


def _region(message: Any, start: str, outputs: set[str], count: int) -> list[Any] | None:
    """The layers between a Permute and those back; None if one of them cannot be rewritten."""
    inside, region = {start}, list[Any]()
    if start in outputs:
        return None
    back = [0, count - 1, *range(1, count - 1)]
    closed = False
    for layer in message.layer:
        bottoms = set(layer.bottom) & inside
        if not bottoms:
            continue
        if layer.type == "Permute" and list(layer.permute_param.order) == back:
            if outputs.intersection(layer.top):
                return None
            closed = True
            region.append(layer)
            continue
        if not _moves(layer, count) or set(layer.bottom) - inside or outputs.intersection(layer.top):
            return None
        region.append(layer)
        inside.update(layer.top)
    return region if closed else None


def _moves(layer: Any, count: int) -> bool:
    """Whether a layer of values with channels on the last axis has a counterpart with channels on axis 1."""
    last = (count - 1, -1)
    if layer.type in ("Dropout", "Eltwise"):
        return True
    if layer.type in ("Scale", "Bias"):
        param = layer.scale_param if layer.type == "Scale" else layer.bias_param
        one = len(layer.bottom) == 1 and len(layer.blobs) > 0 and len(layer.blobs[0].shape.dim) == 1
        return one and param.axis in last
    if layer.type == "LayerNorm":
        return layer.layer_norm_param.axis in last
    if layer.type == "InnerProduct":
        return layer.inner_product_param.axis in last and not layer.inner_product_param.transpose
    return layer.type == "ReLU" or (layer.type in LAYERS and issubclass(LAYERS[layer.type], Elementwise))


def _rewrite(message: Any, start: Any, region: list[Any], count: int) -> None:
    names = {start.top[0]: start.bottom[0]}
    removed = [start.name]
    for layer in region:
        if layer.type == "Permute":
            names[layer.top[0]] = layer.bottom[0]
            removed.append(layer.name)
        elif layer.type in ("Scale", "Bias"):
            (layer.scale_param if layer.type == "Scale" else layer.bias_param).ClearField("axis")
        elif layer.type == "LayerNorm":
            layer.layer_norm_param.axis, layer.layer_norm_param.num_axes = 1, 1
        elif layer.type == "InnerProduct":
            _as_convolution(layer, count)
    kept = [layer for layer in message.layer if layer.name not in removed]
    for layer in kept:
        layer.bottom[:] = [_final(names, name) for name in layer.bottom]
    copies = [pb.LayerParameter.FromString(layer.SerializeToString()) for layer in kept]
    del message.layer[:]
    message.layer.extend(copies)


def _as_convolution(layer: Any, count: int) -> None:
    """Makes a fully connected layer of the last axis a convolution with a window of one pixel."""
    outputs, bias = layer.inner_product_param.num_output, layer.inner_product_param.bias_term
    layer.ClearField("inner_product_param")
    layer.type = "Convolution"
    layer.convolution_param.num_output, layer.convolution_param.bias_term = outputs, bias
    layer.convolution_param.kernel_size.append(1)
    layer.blobs[0].shape.dim.extend([1] * (count - 2))


def _final(names: dict[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name
