"""The smaller definition and its weights: each layer shrunk by its own hand, in the place where the file has it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.channels import NetChannels
from sslnet.compress.constants import Contribution
from sslnet.prototxt import Definition
from sslnet.weights import Arrays, blob_proto


@dataclass
class Smaller:
    """What is left of a net.

    message  pb.NetParameter, all layers of all phases
    arrays   parameter blobs by layer name
    origin   for each layer of the message, its index in the original's message; -1 for one that carries constants
    """

    message: Any
    arrays: Arrays
    origin: list[int]

    def definition(self, path: str | None) -> Definition:
        """The message as a Definition that finds its files where one beside ``path`` would."""
        beside = None if path is None else os.path.join(os.path.dirname(path), "(smaller net)")
        return prototxt.parse(prototxt.write(self.message), pb.NetParameter, beside)

    def weights(self) -> Any:
        """A pb.NetParameter of the layers that have parameters, once each, with their blobs."""
        result = pb.NetParameter(name=self.message.name)
        left = dict(self.arrays)
        for layer in self.message.layer:
            if layer.name in left:
                result.layer.add().CopyFrom(layer)
                result.layer[-1].blobs.extend(blob_proto(array) for array in left.pop(layer.name))
        return result


def build_smaller(
    definition: Definition,
    views: Sequence[NetChannels],
    contributions: Mapping[int, Contribution],
    weights: Mapping[str, Sequence[np.ndarray]],
    *,
    standard_only: bool = False,
) -> Smaller:
    """The smaller net.

    views          of the phases; contributions belong to the layers of the first
    weights        what the .caffemodel holds: for layers that run in none of these phases, which stay as they are
    standard_only  convolutions as Caffe reads them
    """
    shrunk: dict[int, Any] = {}
    maps: dict[int, np.ndarray] = {}
    arrays: Arrays = {}
    for view in views:
        added = contributions if view is views[0] else {}
        for i, layer in enumerate(view.net.layers):
            place, contribution = layer.definition.index, added.get(i, Contribution())
            if place in shrunk:
                continue
            param, blobs = _shrink(view, i, contribution, standard_only)
            if blobs:
                arrays.setdefault(layer.name, blobs)
            if param is not None and place >= 0:
                shrunk[place] = param
            if contribution.map is not None:
                maps[place] = contribution.map
    return _assemble(definition.message, shrunk, maps, arrays, weights)


def _shrink(view: NetChannels, i: int, contribution: Contribution, standard_only: bool) -> tuple[Any, list[np.ndarray]]:
    """The layer's smaller definition, None when it stays as the file has it, and its parameters."""
    layer = view.net.layers[i]
    if view.refuses[i]:
        return None, [np.array(blob.data) for blob in layer.blobs]
    whole = all(c.needed.all() for c in (*view.bottoms[i], *view.tops[i]))
    if whole and contribution.shift is None:
        before, param, blobs = layer.param, pb.LayerParameter(), [np.array(blob.data) for blob in layer.blobs]
        param.CopyFrom(before)
    else:
        bottoms, tops = [c.keep for c in view.bottoms[i]], [c.keep for c in view.tops[i]]
        before = None
        param, blobs = (contribution.layer or layer).shrink(bottoms, tops, contribution.shift)
    blobs = layer.shrink_columns(param, blobs, standard_only=standard_only)
    blobs = [np.ascontiguousarray(blob, dtype=layer.dtype) for blob in blobs]
    return None if param == before else param, blobs


def _assemble(
    original: Any,
    shrunk: Mapping[int, Any],
    maps: Mapping[int, np.ndarray],
    arrays: Arrays,
    weights: Mapping[str, Sequence[np.ndarray]],
) -> Smaller:
    message = pb.NetParameter()
    message.CopyFrom(original)
    del message.layer[:]
    origin = []
    names = {layer.name for layer in original.layer}
    for place, layer in enumerate(original.layer):
        message.layer.add().CopyFrom(_with_wiring_of(layer, shrunk.get(place, layer)))
        origin.append(place)
        if place not in shrunk and layer.name in weights and layer.name not in arrays:
            arrays[layer.name] = list(weights[layer.name])
        if place in maps:
            carrier = _constant_layer(layer, names)
            message.layer.add().CopyFrom(carrier)
            origin.append(-1)
            arrays[carrier.name] = [maps[place].astype(arrays[layer.name][0].dtype)]
    return Smaller(message, arrays, origin)


def _with_wiring_of(original: Any, layer: Any) -> Any:
    """The layer with the file's own names of its blobs: a net that runs reads the tops of Split layers."""
    result = pb.LayerParameter()
    result.CopyFrom(layer)
    for name in ("bottom", "top", "loss_weight"):
        result.ClearField(name)
        getattr(result, name).extend(getattr(original, name))
    del result.blobs[:]
    return result


def _constant_layer(layer: Any, names: set[str]) -> Any:
    """A Bias behind a layer, one number for each value of its top, held fixed in training."""
    name = f"{layer.name}_constant"
    while name in names:
        name += "_"
    names.add(name)
    carrier = pb.LayerParameter(name=name, type="Bias", bottom=[layer.top[0]], top=[layer.top[0]])
    carrier.include.extend(layer.include)
    carrier.exclude.extend(layer.exclude)
    carrier.param.add(lr_mult=0, decay_mult=0)
    carrier.bias_param.axis = 1
    carrier.bias_param.num_axes = -1
    return carrier
