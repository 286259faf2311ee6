"""AutoCrop: cuts the first bottom to the height and width of the second, at its centre.

The offset is (size - size of the second) // 2 along each axis. dx = dy inside, else 0.

bottoms  x (N, C, H, W), and one whose height and width are taken
top      (N, C, height, width)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet.layers.base import Blobs
from sslnet.layers.channels import ChannelKeeper
from sslnet.layers.onnx import OnnxGraph, cut


@final
class AutoCrop(ChannelKeeper):
    TYPE: ClassVar[str] = "AutoCrop"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = "removed in the first bottom and the top together; all of the second bottom are kept"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, size = bottom
        if x.num_axes != 4 or size.num_axes != 4:
            raise self.shape_error(f"both bottoms must be images: {x.shape} and {size.shape}")
        if any(a < b for a, b in zip(x.shape[2:], size.shape[2:])):
            raise self.shape_error(f"the first bottom must be as large as the second: {x.shape} and {size.shape}")
        self.offsets = [(a - b) // 2 for a, b in zip(x.shape[2:], size.shape[2:])]
        top[0].reshape(*x.shape[:2], *size.shape[2:])
        ends = [offset + length for offset, length in zip(self.offsets, size.shape[2:])]
        self.place = (slice(None), slice(None), *map(slice, self.offsets, ends))
        self.keep_channels(top[0], True)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = bottom[0].data[self.place]

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            bottom[0].diff[...] = 0
            bottom[0].diff[self.place] = top[0].diff
        if propagate_down[1]:
            bottom[1].diff[...] = 0

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        parts = [(axis, offset, offset + top[0].shape[axis]) for axis, offset in zip((2, 3), self.offsets)]
        return [cut(graph, self, inputs[0], bottom[0], parts)]
