"""Tile: joins ``tiles`` copies of the bottom along one axis (default 1).  dx = the sum of dy over the copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.channels import MOVED, channel_axis
from sslnet.layers.onnx import OnnxGraph


@final
class Tile(Layer):
    TYPE: ClassVar[str] = "Tile"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = MOVED
    SHRINKS: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.tiles: int = self.param.tile_param.tiles
        if self.tiles < 1:
            raise self.error(f"tiles must be at least 1, not {self.tiles}", "tile_param", "tiles")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        axis = axis_of(self, x, self.param.tile_param.axis, "tile_param", "axis")
        top[0].reshape(*x.shape[:axis], self.tiles * x.shape[axis], *x.shape[axis + 1 :])
        self.fold = (x.count_of(0, axis), 1, x.count_of(axis))
        self.copies = (self.fold[0], self.tiles, self.fold[2])
        self.channel_copies = self.tiles if axis == channel_axis(x) else 1

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data.reshape(self.copies)[...] = bottom[0].data.reshape(self.fold)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            np.sum(top[0].diff.reshape(self.copies), axis=1, keepdims=True, out=bottom[0].diff.reshape(self.fold))

    # -- compaction: the copies of a channel are removed or kept together ----------------------------------------------

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.tile(bottom[0], self.channel_copies)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(top[0].reshape(self.channel_copies, -1))]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.tile(bottom[0], self.channel_copies)]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        repeats = [after // before for before, after in zip(bottom[0].shape, top[0].shape)]
        if repeats[0] != 1:
            graph.fix_batch(self)
        return [graph.node("Tile", [inputs[0], graph.integers(repeats)])]
