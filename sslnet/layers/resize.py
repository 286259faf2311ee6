"""Resize: images of another size, as the operator Resize of ONNX computes them.

Output pixel i lies at the place x of the input that ``transform`` gives. Its value is that of the pixel at x, rounded
(NEAREST), or a weighted sum of 2 (LINEAR) or 4 (CUBIC) pixels around x, along each axis; outside the image the pixels of
the edge count, or none with ``exclude_outside``. ``antialias`` widens the kernel of a smaller image by 1 / scale; together
with ``exclude_outside`` it is that of PyTorch and Pillow.

bottom  (N, C, H, W)
top     (N, C, height, width), or floor(H scale_h), floor(W scale_w)

Ref: ONNX operator Resize, version 19; Keys 1981 (cubic)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.onnx import OnnxGraph
from sslnet.layers.resampled import Resampled, Table

P = pb.ResizeLayerParameter
REACH = {P.LINEAR: 1, P.CUBIC: 2}
"""Half the width of a kernel in pixels."""


@final
class Resize(Resampled):
    TYPE: ClassVar[str] = "Resize"

    @classmethod
    def describe(cls, param: Any) -> str:
        own = param.resize_param
        size = f"{own.height} x {own.width}" if own.HasField("height") else f"x {own.scale_h:g}, {own.scale_w:g}"
        return f"{P.Mode.Name(own.mode).lower()}, {size}"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.resize_param
        for first, second in (("height", "width"), ("scale_h", "scale_w")):
            if param.HasField(first) != param.HasField(second):
                raise self.error(f"{first} and {second} go together", "resize_param")
        if param.HasField("height") == param.HasField("scale_h"):
            raise self.error("either height and width, or scale_h and scale_w", "resize_param")
        for name in ("height", "width", "scale_h", "scale_w"):
            value = getattr(param, name)
            if param.HasField(name) and not 0 < value < math.inf:
                raise self.error(f"{name} must be above 0, not {value:g}", "resize_param", name)
        if param.antialias and param.mode == P.NEAREST:
            raise self.error("antialias is for LINEAR and CUBIC", "resize_param", "antialias")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, sizes = self.param.resize_param, self.image_size(bottom)
        if param.HasField("height"):
            out = (param.height, param.width)
            scales = [new / old for new, old in zip(out, sizes)]
        else:
            scales = [param.scale_h, param.scale_w]
            # A scale is stored with 24 bits: 1.1 times 10 pixels are 11, as for the scale with 53 bits.
            out = (_floor(sizes[0] * scales[0]), _floor(sizes[1] * scales[1]))
        if min(out) < 1:
            raise self.shape_error(f"nothing is left of images of {sizes[0]} x {sizes[1]}", "resize_param")
        self.sample(bottom, top, *(self._table(*numbers) for numbers in zip(sizes, out, scales)))

    def _table(self, size: int, out: int, scale: float) -> Table:
        param = self.param.resize_param
        place = self._places(size, out, scale)
        if param.mode == P.NEAREST:
            index = np.clip(self._rounded(place), 0, size - 1).astype(np.int64)[:, None]
            return index, np.ones(index.shape)
        squeeze = min(scale, 1.0) if param.antialias else 1.0
        reach = REACH[param.mode] / squeeze
        first = np.floor(place - reach).astype(np.int64) + 1
        index = first[:, None] + np.arange(math.ceil(2 * reach))
        distance = np.abs(index - place[:, None]) * squeeze
        weight = np.maximum(1 - distance, 0) if param.mode == P.LINEAR else _cubic(distance, param.cubic_a)
        if param.exclude_outside:
            weight = np.where((index >= 0) & (index < size), weight, 0)
        if param.exclude_outside or squeeze < 1:
            weight = weight / weight.sum(axis=1, keepdims=True)
        return np.clip(index, 0, size - 1), weight

    def _places(self, size: int, out: int, scale: float) -> np.ndarray:
        """(out): the place of each output pixel in the input."""
        transform, i = self.param.resize_param.transform, np.arange(out, dtype=np.float64)
        if transform == P.ALIGN_CORNERS:
            return i * ((size - 1) / (out - 1) if out > 1 else 0)
        if transform == P.ASYMMETRIC:
            return i / scale
        if transform == P.PYTORCH_HALF_PIXEL and out == 1:
            return np.zeros(1)
        return (i + 0.5) / scale - 0.5

    def _rounded(self, place: np.ndarray) -> np.ndarray:
        rounding = self.param.resize_param.rounding
        place = np.round(place, 6)  # 2.9999999 is the pixel 3
        result: np.ndarray
        if rounding == P.FLOOR:
            result = np.floor(place)
        elif rounding == P.CEIL:
            result = np.ceil(place)
        else:
            result = np.ceil(place - 0.5) if rounding == P.ROUND_PREFER_FLOOR else np.floor(place + 0.5)
        return result

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if self.param.resize_param.mode == P.CUBIC:  # weights below 0
            return super().bounds(bottom, top)
        return [bottom[0].rounded(self.dtype, 16 + self._tables[0].shape[1] + self._tables[2].shape[1])]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param = self.param.resize_param
        options: dict[str, Any] = {
            "mode": P.Mode.Name(param.mode).lower(),
            "coordinate_transformation_mode": P.Transform.Name(param.transform).lower(),
        }
        if param.mode == P.NEAREST:
            options["nearest_mode"] = P.Rounding.Name(param.rounding).lower()
        if param.mode == P.CUBIC:
            options["cubic_coeff_a"] = param.cubic_a
        if param.exclude_outside:
            options["exclude_outside"] = 1
        if param.antialias:
            options["antialias"] = 1
        if param.HasField("scale_h"):
            scales = graph.constant([1, 1, param.scale_h, param.scale_w])
            return [graph.node("Resize", [inputs[0], "", scales], **options)]
        sizes = graph.integers(top[0].shape[2:])
        return [graph.node("Resize", [inputs[0], "", "", sizes], axes=[2, 3], **options)]


def _floor(value: float) -> int:
    return math.floor(value * (1 + 1e-7))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """The cubic kernel at these distances, with slope a at 1."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
