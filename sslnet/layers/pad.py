"""Pad: adds rows and columns around images, or cuts them off where a number is negative.

The added pixels have one value (CONSTANT), mirror the image at its outermost pixels (REFLECT), copy these (EDGE), or
continue with the opposite side (WRAP).

bottom  (N, C, H, W)
top     (N, C, top + H + bottom, left + W + right); dx = the sum of dy over the copies of each pixel
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.onnx import OnnxGraph
from sslnet.layers.resampled import Resampled, Table

SIDES = ("top", "bottom", "left", "right")


@final
class Pad(Resampled):
    TYPE: ClassVar[str] = "Pad"

    @classmethod
    def describe(cls, param: Any) -> str:
        sides = [getattr(param.pad_param, side) for side in SIDES]
        return f"{' '.join(map(str, sides))}, {pb.PadParameter.Mode.Name(param.pad_param.mode).lower()}"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, sizes = self.param.pad_param, self.image_size(bottom)
        rows = self._table(sizes[0], param.top, param.bottom, ("top", "bottom"))
        columns = self._table(sizes[1], param.left, param.right, ("left", "right"))
        self.sample(bottom, top, rows, columns)
        outside = np.ones(self._out_planes[1:], bool)
        outside[np.ix_(rows[1][:, 0] != 0, columns[1][:, 0] != 0)] = False
        self._level = np.where(outside, param.value, 0).astype(self.dtype)
        self._adds = param.mode == pb.PadParameter.CONSTANT and param.value != 0

    def _table(self, size: int, before: int, behind: int, names: tuple[str, str]) -> Table:
        """The pixels of each position along an axis; weight 0 where the constant is."""
        if size + before + behind < 1 or before <= -size or behind <= -size:
            raise self.shape_error(f"nothing is left of {size} pixels", "pad_param", names[before >= 0])
        mode, most = self.param.pad_param.mode, max(before, behind)
        if mode == pb.PadParameter.REFLECT and most >= size:
            raise self.shape_error(
                f"REFLECT adds at most {size - 1} pixels to {size}, not {most}", "pad_param", names[before < most]
            )
        if mode == pb.PadParameter.WRAP and most > size:
            raise self.shape_error(
                f"WRAP adds at most {size} pixels to {size}, not {most}", "pad_param", names[before < most]
            )
        place = np.arange(-before, size + behind)
        inside = (place >= 0) & (place < size)
        if mode == pb.PadParameter.REFLECT:
            place = np.where(place < 0, -place, np.where(place >= size, 2 * (size - 1) - place, place))
        elif mode == pb.PadParameter.WRAP:
            place = place % size
        index = np.clip(place, 0, size - 1).astype(np.int64)[:, None]
        weight = inside if mode == pb.PadParameter.CONSTANT else np.ones_like(inside)
        return index, weight.astype(np.float64)[:, None]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        super().forward(bottom, top)
        if self._adds:
            y = top[0].data
            y += self._level

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        box, param = bottom[0], self.param.pad_param
        if param.mode != pb.PadParameter.CONSTANT:
            return [box]
        value = float(np.float32(param.value))
        return [ChannelBox(np.minimum(box.low, value), np.maximum(box.high, value))]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param = self.param.pad_param
        sides = [0, 0, param.top, param.left, 0, 0, param.bottom, param.right]
        if not any(sides):
            return list(inputs)
        mode = pb.PadParameter.Mode.Name(param.mode).lower()
        if mode == "wrap":
            graph.need_opset(19)
        values = [graph.constant(np.float32(param.value))] if mode == "constant" and param.value else []
        return [graph.node("Pad", [inputs[0], graph.integers(sides), *values], mode=mode)]
