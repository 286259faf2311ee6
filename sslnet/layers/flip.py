"""Flip: images mirrored left to right (flip_width), upside down (flip_height), or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph


@final
class Flip(ChannelWise):
    TYPE: ClassVar[str] = "Flip"
    KIND: ClassVar[str] = "join"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if bottom[0].num_axes != 4:
            raise self.shape_error(f'Flip is of images (N, C, H, W): "{bottom[0].name}" has shape {bottom[0].shape}')
        param = self.param.flip_param
        self.axes = tuple(axis for axis, flips in ((2, param.flip_height), (3, param.flip_width)) if flips)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = np.flip(bottom[0].data, self.axes)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            bottom[0].diff[...] = np.flip(top[0].diff, self.axes)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if not self.axes:
            return list(inputs)
        ends = [-1] * len(self.axes), [-(1 << 31)] * len(self.axes), list(self.axes), [-1] * len(self.axes)
        return [graph.node("Slice", [inputs[0], *map(graph.integers, ends)])]
