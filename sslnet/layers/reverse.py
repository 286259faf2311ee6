"""Reverse: the places of an axis in reverse order (axis; by default the first one, as time steps); of several axes each.

dx = dy, reversed likewise

Ref: Caffe's branches for sequences; Huawei's Ascend has the same layer
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.channels import ChannelKeeper
from sslnet.layers.onnx import OnnxGraph


@final
class Reverse(ChannelKeeper):
    TYPE: ClassVar[str] = "Reverse"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = "removed in bottom and top together, unless channels or images change places"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        given = list(self.param.reverse_param.axis) or [0]
        self.axes = sorted({axis_of(self, bottom[0], axis, "reverse_param", "axis") for axis in given})
        top[0].reshape_like(bottom[0])
        self.keep_channels(top[0], bottom[0].num_axes > 1 and 1 not in self.axes)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = np.flip(bottom[0].data, tuple(self.axes))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            bottom[0].diff[...] = np.flip(top[0].diff, tuple(self.axes))

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if 0 in self.axes:
            graph.fix_batch(self)
        count = len(self.axes)
        ends = [-1] * count, [-(1 << 31)] * count, self.axes, [-1] * count
        return [graph.node("Slice", [inputs[0], *map(graph.integers, ends)])]
