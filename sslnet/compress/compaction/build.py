"""Builds the smaller definition and its weights: shrinks each layer by its ``shrink`` method, in the file's order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.bypass import copy_layer, remove_copies, silence_unread
from sslnet.compress.compaction.channels import NetChannels
from sslnet.compress.compaction.compare import compared_blobs
from sslnet.compress.compaction.constant_folding import Contribution
from sslnet.layers.base import Layer
from sslnet.net.blob_arrays import blob_proto
from sslnet.net.weights import Arrays
from sslnet.prototxt import Definition
from sslnet.sparsity.groups import matrix_shape

BLOCK = pb.GroupLassoSpec.BLOCK


@dataclass
class Smaller:
    """The smaller net as a message and arrays.

    message  all layers of all phases
    arrays   parameter blobs by layer name
    origin   for each layer of the message, its index in the original message; -1 for an added layer of constants
    untiled  names of layers with group lasso tiles that no longer divide the smaller weights and are dropped
    """

    message: pb.NetParameter
    arrays: Arrays
    origin: list[int]
    untiled: list[str] = field(default_factory=list)

    def shared_differ(self) -> bool:
        """Whether layers that share a parameter by name now have different values of it."""
        found: dict[str, np.ndarray] = {}
        for layer in self.message.layer:
            for spec, array in zip(layer.param, self.arrays.get(layer.name, ())):
                if spec.name and not np.array_equal(found.setdefault(spec.name, array), array):
                    return True
        return False

    def weights(self) -> pb.NetParameter:
        """The weights as a pb.NetParameter: each layer with parameters once, with its blobs."""
        result = pb.NetParameter(name=self.message.name)
        left = dict(self.arrays)
        for layer in self.message.layer:
            if layer.name in left:
                result.layer.add().CopyFrom(layer)
                result.layer[-1].blobs.extend(blob_proto(array) for array in left.pop(layer.name))
        return result


def smaller_definition(message: pb.NetParameter, path: str | None) -> Definition:
    """The smaller net's message as a Definition that resolves file names relative to the folder of ``path``."""
    beside = None if path is None else os.path.join(os.path.dirname(path), "(smaller net)")
    return prototxt.parse(prototxt.write(message), pb.NetParameter, beside)


def build_smaller(
    definition: Definition,
    views: Sequence[NetChannels],
    contributions: Mapping[int, Contribution],
    weights: Mapping[str, Sequence[np.ndarray]],
    *,
    standard_only: bool = False,
) -> Smaller:
    """Builds the smaller net.

    views          one view for each phase; contributions are for the layers of the first
    weights        weights of the layers that run in none of these phases, kept unchanged; [] for layers without any
    standard_only  whether to write convolutions such that Caffe can read them
    """
    pieces: dict[int, _Piece] = {}
    arrays: Arrays = {}
    untiled = []
    for view in views:
        added = contributions if view is views[0] else {}
        for i, layer in enumerate(view.net.layers):
            place, contribution = layer.definition.index, added.get(i, Contribution())
            if place in pieces:
                continue
            if not view.is_needed(i):
                pieces[place] = _Piece(None)
                continue
            param, blobs = _shrink(view, i, contribution, standard_only)
            if param is not None and not _fit_tiles(layer, param, blobs):
                untiled.append(layer.name)
            if blobs:
                arrays.setdefault(layer.name, blobs)
            if place >= 0:
                pieces[place] = _piece(view, i, definition.message.layer[place], param, contribution)
    smaller = _assemble(definition.message, pieces, arrays, weights)
    smaller.untiled = untiled
    remove_copies(smaller.message, smaller.origin, [p for p, piece in pieces.items() if piece.copies], _watched(views))
    silence_unread(definition, smaller.message, smaller.origin, [view.net.state for view in views])
    return smaller


@dataclass
class _Piece:
    """The smaller version of one layer of the file.

    param   definition of the layer; None if it is removed
    map     values of a Bias layer to add after it
    factor  values of a Scale layer to add after it
    copies  whether the layer only copies its bottom
    """

    param: pb.LayerParameter | None
    map: np.ndarray | None = None
    factor: np.ndarray | None = None
    copies: bool = False


def _piece(
    view: NetChannels, i: int, original: pb.LayerParameter, param: pb.LayerParameter | None, added: Contribution
) -> _Piece:
    """The layer with its connections as in the file, without the removed bottoms and tops."""
    removed, removed_tops = view.removed_bottoms(i), view.removed_tops(i)
    param = _with_wiring_of(original, original if param is None else param)
    for name, gone in (
        ("bottom", removed),
        ("propagate_down", removed),
        ("top", removed_tops),
        ("loss_weight", removed_tops),
    ):
        values = list(getattr(param, name))
        del getattr(param, name)[:]
        getattr(param, name).extend(value for value, out in zip(values, gone) if not out)
    single = any(removed) and len(param.bottom) == len(param.top) == 1
    if not single:
        return _Piece(param, added.map, added.factor)
    factor = next((f for f, gone in zip(view.net.layers[i].coefficients(), removed) if not gone), 1.0)
    return _Piece(copy_layer(param, factor), added.map, added.factor, copies=factor == 1)


def _watched(views: Sequence[NetChannels]) -> set[str]:
    """Names of blobs that must not be renamed: outputs, losses, and blobs by which two nets are compared."""
    nets = [view.net for view in views]
    return {name for net in nets for name in (*net.outputs, *net.loss_weights, *compared_blobs(net))}


def _shrink(
    view: NetChannels, i: int, contribution: Contribution, standard_only: bool
) -> tuple[pb.LayerParameter | None, list[np.ndarray]]:
    """The layer's smaller definition, None if unchanged, and its parameters."""
    layer = view.net.layers[i]
    if view.refuses[i]:
        return None, [np.array(blob.data) for blob in layer.blobs]
    param, blobs = shrink_layer(view, i, contribution, contribution.layer or layer)
    blobs = layer.shrink_columns(param, blobs, standard_only=standard_only)
    blobs = [np.ascontiguousarray(blob, dtype=layer.dtype) for blob in blobs]
    return None if param == layer.param else param, blobs


def _fit_tiles(layer: Layer, param: pb.LayerParameter, blobs: Sequence[np.ndarray]) -> bool:
    """Resizes full-height and full-width tiles to the new shape, drops tiles that no longer divide it; True if none was
    dropped.  [changes param]"""
    fits = True
    for spec, before, after in zip(param.param, layer.blobs, blobs):
        (rows, columns), (height, width) = matrix_shape(before.shape), matrix_shape(after.shape)
        tiles: tuple[Any, ...] = (spec.block_group_lasso, spec.group_lasso)
        for named, blocks in enumerate(tiles):
            for k in reversed(range(len(blocks))):
                block = blocks[k]
                if (named and block.group != BLOCK) or not (block.ydimen and block.xdimen):
                    continue
                block.ydimen = height if block.ydimen == rows else block.ydimen
                block.xdimen = width if block.xdimen == columns else block.xdimen
                if height % block.ydimen or width % block.xdimen:
                    del blocks[k]
                    fits = False
    return fits


def shrink_layer(
    view: NetChannels, i: int, contribution: Contribution, layer: Layer
) -> tuple[pb.LayerParameter, list[np.ndarray]]:
    """Definition and parameters of layer i without the removed channels.  layer: layer i, or its replacement"""
    bottoms = [np.flatnonzero(c.needed & (not gone)) for c, gone in zip(view.bottoms[i], view.dropped[i])]
    whole = all(c.needed.all() for c in (*view.bottoms[i], *view.tops[i])) and not any(view.dropped[i])
    if not whole or contribution.shift is not None:
        return layer.shrink(bottoms, [c.keep for c in view.tops[i]], contribution.shift)
    param = pb.LayerParameter()
    param.CopyFrom(layer.param)
    return param, [np.array(blob.data) for blob in layer.blobs]


def _assemble(
    original: pb.NetParameter, pieces: Mapping[int, _Piece], arrays: Arrays, weights: Mapping[str, Sequence[np.ndarray]]
) -> Smaller:
    message = pb.NetParameter()
    message.CopyFrom(original)
    del message.layer[:]
    origin = []
    names = {layer.name for layer in original.layer}
    for place, layer in enumerate(original.layer):
        piece = pieces.get(place, _Piece(layer))
        if piece.param is None:
            continue
        message.layer.add().CopyFrom(piece.param)
        origin.append(place)
        if place not in pieces and weights.get(layer.name) and layer.name not in arrays:
            arrays[layer.name] = list(weights[layer.name])
        for kind, values in (("Bias", piece.map), ("Scale", piece.factor)):
            if values is not None:
                carrier = _constant_layer(kind, piece.param, free_name(f"{layer.name}_constant", names), values)
                message.layer.add().CopyFrom(carrier)
                origin.append(-1)
                arrays[carrier.name] = [values.astype(np.float32)]
    return Smaller(message, arrays, origin)


def _with_wiring_of(original: pb.LayerParameter, layer: pb.LayerParameter) -> pb.LayerParameter:
    """The layer with the blob names of the file; in a running net, its bottoms may be tops of Split layers instead."""
    result = pb.LayerParameter()
    result.CopyFrom(layer)
    for name in ("bottom", "top", "loss_weight"):
        result.ClearField(name)
        getattr(result, name).extend(getattr(original, name))
    del result.blobs[:]
    return result


def free_name(name: str, names: set[str]) -> str:
    """The name, with underscores appended until it is unique.  [adds it to names]"""
    while name in names:
        name += "_"
    names.add(name)
    return name


def _constant_layer(kind: str, layer: pb.LayerParameter, name: str, values: np.ndarray) -> pb.LayerParameter:
    """A Bias or Scale after a layer, with one number per value or per channel of its top, fixed in training."""
    carrier = pb.LayerParameter(name=name, type=kind, bottom=[layer.top[0]], top=[layer.top[0]])
    carrier.include.extend(layer.include)
    carrier.exclude.extend(layer.exclude)
    carrier.param.add(lr_mult=0, decay_mult=0)
    param = carrier.bias_param if kind == "Bias" else carrier.scale_param
    param.axis = 1
    param.num_axes = 1 if values.ndim == 1 else -1
    return carrier
