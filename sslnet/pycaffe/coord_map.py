"""Where the pixels of one blob of a NetSpec lie in another one, and the Crop layer that follows from it (FCN's net.py).

A map (axis, scale, shift) of a layer: output place i comes from input place (i - shift) / scale along the axes from ``axis``
on; axis None: the layer keeps places. Scale and shift are numbers, or arrays with one number for each axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.errors import UsageError
from sslnet.layers import LAYERS
from sslnet.layers.base import Layer
from sslnet.layers.convolution import Convolution
from sslnet.layers.deconvolution import Deconvolution
from sslnet.layers.dropout import Dropout
from sslnet.layers.elementwise import Elementwise
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.exp import Exp
from sslnet.layers.im2col import Im2col
from sslnet.layers.log import Log
from sslnet.layers.pooling import Pooling
from sslnet.layers.power import Power
from sslnet.layers.split import Split
from sslnet.layers.threshold import Threshold
from sslnet.prototxt.net_spec import Call, Top, layer_function

Map = tuple[Any, Any, Any]
"""axis, scale, shift"""
_KEEP_KINDS = ("activation", "norm")
_KEEP = (Elementwise, Dropout, Eltwise, Split, Log, Exp, Power, Threshold)
"""Classes of layers that keep places, beside those of these kinds."""


class UndefinedMapException(UsageError):
    """A layer does not map places to places."""

    def __init__(self, type_name: str = "") -> None:
        super().__init__(f"{type_name or 'the layer'} does not map places to places")


class AxisMismatchException(UsageError):
    """Two maps are of different axes."""

    def __init__(self) -> None:
        super().__init__("the maps of two layers are of different axes")


def conv_params(fn: Call) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """First axis, stride, extent of the window and padding of a Convolution, Deconvolution, Im2col or Pooling."""
    fields = _fields(fn, "pooling_param" if fn.type_name == "Pooling" else "convolution_param")
    for name in ("pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w", "pad_type"):
        if name in fields:
            raise UsageError(f"coord_map does not know {name}: give kernel_size, stride and pad")
    if "kernel_size" not in fields:
        raise UndefinedMapException(fn.type_name)
    kernel, dilation = (np.array(fields.get(name, 1), ndmin=1) for name in ("kernel_size", "dilation"))
    stride, pad = (np.array(fields.get(name, least), ndmin=1) for name, least in (("stride", 1), ("pad", 0)))
    return fields.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Call) -> tuple[int, np.ndarray]:
    """First axis and offsets of a Crop."""
    fields = _fields(fn, "crop_param")
    return fields.get("axis", 2), np.array(fields.get("offset", 0), ndmin=1)


def _fields(fn: Call, block: str) -> Any:
    """The fields of a layer's own message, whether they are given in it or by themselves."""
    found = fn.params.get(block, fn.params)
    return found if isinstance(found, dict) else {field.name: value for field, value in found.ListFields()}


def coord_map(fn: Call) -> Map:
    """The map of a layer. raises UndefinedMapException"""
    layer = LAYERS.get(fn.type_name, Layer)
    if issubclass(layer, Convolution | Pooling | Im2col):
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    if issubclass(layer, Deconvolution):
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset
    if issubclass(layer, _KEEP) or layer.KIND in _KEEP_KINDS:
        return None, 1, 0
    raise UndefinedMapException(fn.type_name)


def compose(base_map: Map, next_map: Map) -> Map:
    """The map that applies ``next_map`` first. raises AxisMismatchException"""
    (first, a1, b1), (second, a2, b2) = base_map, next_map
    if first is not None and second is not None and first != second:
        raise AxisMismatchException
    return second if first is None else first, a1 * a2, a1 * b2 + b1


def inverse(coord_map: Map) -> Map:
    """The map in the other direction."""
    axis, a, b = coord_map
    return axis, 1 / a, -b / a


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from one top to another, by way of a blob that both come from.

    raises  UsageError if there is none behind layers that map places
    """
    start = _ancestors(top_from)
    to_maps: dict[Top, Map] = {top_to: (None, 1, 0)}
    frontier = [top_to]
    while frontier:
        top = frontier.pop()
        if top in start:
            return compose(to_maps[top], inverse(start[top]))
        for bottom, found in _step(top, to_maps[top]):
            to_maps[bottom] = found
            frontier.append(bottom)
    raise UsageError("there is no map between the tops: are they joined by layers that map places to places?")


def _ancestors(top: Top) -> dict[Top, Map]:
    maps: dict[Top, Map] = {top: (None, 1, 0)}
    frontier = [top]
    while frontier:
        current = frontier.pop()
        for bottom, found in _step(current, maps[current]):
            maps[bottom] = found
            frontier.append(bottom)
    return maps


def _step(top: Top, found: Map) -> list[tuple[Top, Map]]:
    """The bottoms that the map of a top reaches, with their maps; of a Crop only the one that is cut."""
    bottoms = top.fn.inputs[:1] if top.fn.type_name == "Crop" else top.fn.inputs
    try:
        return [(bottom, compose(found, coord_map(top.fn))) for bottom in bottoms]
    except UndefinedMapException:
        return []


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop layer that cuts ``top_from`` to the size of ``top_to``, where its places are.

    raises  UsageError if the scales differ, or an offset is negative or no whole number
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    scale, shift = np.array(scale, ndmin=1), np.array(shift, ndmin=1)
    if axis is None:
        axis = 1
    if not (scale == 1).all():
        raise UsageError(f"Crop cannot change the scale, which is {scale.tolist()}")
    if (shift > 0).any():
        raise UsageError(f"Crop would begin before the blob, at {(-shift).tolist()}: more padding is needed in front")
    if (np.round(shift) != shift).any():
        raise UsageError(f"Crop would begin between pixels, at {(-shift).tolist()}")
    offsets = [int(value) for value in -np.round(shift)]
    made: Top = layer_function("Crop")(top_from, top_to, crop_param={"axis": axis + 1, "offset": offsets})
    return made
