"""``fold_affine``: folds BatchNorm, Scale and Bias into the Convolution or InnerProduct before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.pruning.linear_layer import find_shared
from sslnet.layers.base import Layer
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.bias import Bias
from sslnet.layers.convolution import Convolution
from sslnet.layers.inner_product import InnerProduct
from sslnet.layers.scale import Scale
from sslnet.net.net import Net
from sslnet.net.weights import Arrays


@dataclass
class Folded:
    """A definition without the folded layers, the changed weights, and the names of the folded layers."""

    message: pb.NetParameter
    arrays: Arrays
    names: list[str]


def fold_affine(net: Net, message: pb.NetParameter, arrays: Arrays) -> Folded:
    """Folds what can be folded.

    net       the net in phase TEST, with its weights;  message: its definition in all phases
    arrays    all weights, by layer
    """
    arrays = {name: [np.array(value, np.float32) for value in values] for name, values in arrays.items()}
    shared = find_shared(net)
    folded: dict[str, str] = {}
    writer: dict[int, int] = {}
    """The layer whose result a blob shows, possibly with folded layers, by the identity of the blob."""
    for i, layer in enumerate(net.layers):
        bottom, top = net.bottoms[i], net.tops[i]
        source = writer.get(id(bottom[0])) if bottom else None
        map_ = _affine(layer) if source is not None and len(bottom) == len(top) == 1 and i not in shared else None
        if source is not None and map_ is not None and _readers(net, bottom[0], source, i) == 0:
            _apply(net.layers[source], arrays, *map_)
            folded[layer.name] = net.layers[source].name
            writer[id(top[0])] = source
            continue
        for blob in top:
            writer.pop(id(blob), None)
        good = isinstance(layer, Convolution | InnerProduct) and getattr(layer, "axis", 0) == 1
        if good and len(top) == 1 and i not in shared and layer.name in arrays:
            writer[id(top[0])] = i
    return Folded(_without(message, net, folded), _kept(arrays, folded), list(folded))


def _readers(net: Net, blob: object, source: int, end: int) -> int:
    """Number of layers between that read the blob, other than folded ones working in place."""
    return sum(
        any(b is blob for b in net.bottoms[j]) and not (net.tops[j] and net.tops[j][0] is blob)
        for j in range(source + 1, end)
    )


def _affine(layer: Layer) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and shift (channels) of a layer that is an affine map of each channel; None for others."""
    if isinstance(layer, BatchNorm):
        param = layer.param.batch_norm_param
        if param.HasField("use_global_stats") and not param.use_global_stats:
            return None
        mean, variance, count = (np.asarray(blob.data, np.float64).reshape(-1) for blob in layer.blobs[:3])
        weight = 1 / count[0] if count[0] else 0.0
        factor = 1 / np.sqrt(variance * weight + param.eps)
        return factor, -mean * weight * factor
    if isinstance(layer, Scale | Bias):
        sub = layer.param.scale_param if isinstance(layer, Scale) else layer.param.bias_param
        if not layer.blobs or sub.axis != 1 or sub.num_axes != 1:
            return None
        first = np.asarray(layer.blobs[0].data, np.float64).reshape(-1)
        if isinstance(layer, Bias):
            return np.ones_like(first), first
        shift = (
            np.asarray(layer.blobs[1].data, np.float64).reshape(-1) if len(layer.blobs) > 1 else np.zeros_like(first)
        )
        return first, shift
    return None


def _apply(layer: Layer, arrays: Arrays, factor: np.ndarray, shift: np.ndarray) -> None:
    """Multiplies the outputs of a layer by a factor and adds a shift.  [changes arrays]"""
    values = arrays[layer.name]
    weights = values[0].astype(np.float64)
    if isinstance(layer, InnerProduct) and layer.transpose:
        weights = weights.reshape(layer.blobs[0].shape) * factor
    else:
        weights = weights.reshape(layer.blobs[0].shape)
        weights = weights * factor.reshape(-1, *(1,) * (weights.ndim - 1))
    bias = values[1].astype(np.float64).reshape(-1) * factor if len(values) > 1 else 0.0
    arrays[layer.name] = [weights.astype(np.float32), (bias + shift).astype(np.float32)]


def _without(message: pb.NetParameter, net: Net, folded: dict[str, str]) -> pb.NetParameter:
    """The definition without the folded layers; what they wrote is written by the layer that they are folded into."""
    result = pb.NetParameter()
    result.CopyFrom(message)
    del result.layer[:]
    tops = {layer.name: layer.top[0] for layer in message.layer if layer.top}
    last = {into: tops[name] for name, into in folded.items() if name in tops}
    """The name of the blob that a layer writes from now on."""
    for layer in message.layer:
        if layer.name in folded:
            continue
        new = result.layer.add()
        new.CopyFrom(layer)
        if layer.name in last:
            new.top[0] = last[layer.name]
            sub = new.inner_product_param if layer.type == "InnerProduct" else new.convolution_param
            sub.ClearField("bias_term")
    return result


def _kept(arrays: Arrays, folded: dict[str, str]) -> Arrays:
    return {name: values for name, values in arrays.items() if name not in folded}
