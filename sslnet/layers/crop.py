"""Crop: cuts the first bottom to the size of the second, along the axes from ``axis`` (default 2) on.

``offset`` is the start of the crop, once for all axes or once per axis; only the shape of the second bottom is read.
dx = dy inside the crop, 0 outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channels import MOVED, ChannelKeeper
from sslnet.layers.onnx import OnnxGraph, cut


@final
class Crop(ChannelKeeper):
    TYPE: ClassVar[str] = "Crop"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = MOVED
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, size = bottom
        param = self.param.crop_param
        axis = axis_of(self, x, param.axis, "crop_param", "axis")
        if size.num_axes != x.num_axes:
            raise self.shape_error(f"both bottoms must have as many axes: {x.shape} and {size.shape}")
        cropped = x.num_axes - axis
        offsets = list(param.offset) or [0]
        if len(offsets) not in (1, cropped):
            raise self.error(
                f"{len(offsets)} offset for {cropped} axes from axis {axis} on",
                "crop_param",
                "offset",
                0,
                hint="give it once, or once for each axis",
            )
        offsets = offsets * cropped if len(offsets) == 1 else offsets
        for index, (offset, length, room) in enumerate(zip(offsets, size.shape[axis:], x.shape[axis:])):
            if offset + length > room:
                raise self.shape_error(
                    f"the cut leaves axis {axis + index}: offset {offset} + size {length} > {room}; "
                    f"bottoms {x.shape} and {size.shape}",
                    "crop_param",
                )
        self.window = (slice(None),) * axis + tuple(slice(o, o + n) for o, n in zip(offsets, size.shape[axis:]))
        top[0].reshape(*x.shape[:axis], *size.shape[axis:])
        self.keep_channels(top[0], axis > 1)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [bottom[0]] if self._keeps_channels else super().bounds(bottom, top)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = bottom[0].data[self.window]

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            bottom[0].diff[...] = 0
            bottom[0].diff[self.window] = top[0].diff
        if propagate_down[1]:
            bottom[1].diff[...] = 0

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        parts = [(axis, s.start, s.stop) for axis, s in enumerate(self.window) if s != slice(None)]
        return [cut(graph, self, inputs[0], bottom[0], parts)]
