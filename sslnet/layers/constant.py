"""Constant: the same values for each image of the bottom, such as the coordinates of its pixels.

The values are a parameter; ``param { lr_mult: 0 }`` keeps them. Only the number of images of the bottom matters; dx = 0.

bottom  (N, ...)
top     (N, *shape); dvalues = the sum of dy over the images
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.onnx import OnnxGraph


@final
class Constant(Layer):
    TYPE: ClassVar[str] = "Constant"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = "removed with their values"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        shape = list(self.param.constant_param.shape.dim)
        for index, size in enumerate(shape):
            if size < 1:
                raise self.error(f"dim must be at least 1, not {size}", "constant_param", "shape", "dim", index)
        if not bottom[0].num_axes:
            raise self.shape_error(f'Constant needs images: "{bottom[0].name}" is one number')
        self.new_param(shape, "constant_param", "filler")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape[0], *self.blobs[0].shape)
        self._pixel_axes = bottom[0].num_axes - 2

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = self.blobs[0].data

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if self.param_propagate_down[0]:
            diff = self.blobs[0].diff
            diff += top[0].diff.sum(axis=0)
        if propagate_down[0]:
            bottom[0].diff[...] = 0

    # -- compaction: any channels of the bottom will do; a channel of the top with one value everywhere is constant ----

    SHRINKS: ClassVar[bool] = True

    def reads_any_channel(self) -> bool:
        return True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        values = self.blobs[0].data
        if not values.ndim:
            return []
        flat = values.reshape(len(values), -1)
        return [(flat == flat[:, :1]).all(axis=1)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.zeros_like(bottom_constant[0])]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return []

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if blobs[0].ndim:
            blobs = [blobs[0][top_keep[0]]]
            param.constant_param.shape.dim[0] = len(blobs[0])
        return param, blobs

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        values = graph.param(self, 0, self.blobs[0].data[None], "one")
        count = graph.node("Shape", [inputs[0]], start=0, end=1)
        rest = graph.integers(self.blobs[0].shape)
        shape = graph.node("Concat", [count, rest], axis=0) if self.blobs[0].num_axes else count
        return [graph.node("Expand", [values, shape])]
