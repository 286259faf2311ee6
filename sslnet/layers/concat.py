"""Concat: joins its bottoms along one axis (default 1); a single bottom shares its data.  dx_i = its part of dy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from math import prod
from typing import Any, ClassVar, final

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.runtime.copying import copy_matrix
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.bounds import ChannelBox, concatenated
from sslnet.layers.channels import MOVED, channel_axis
from sslnet.layers.onnx import OnnxGraph


def cut(array: np.ndarray, axis: int, sizes: Sequence[int]) -> list[np.ndarray]:
    """Views (rows, values) of the parts of the array with these sizes along the axis."""
    rows = prod(array.shape[:axis])
    flat = array.reshape(rows, -1)
    inner = flat.shape[1] // max(1, array.shape[axis])
    ends = accumulate(sizes)
    return [flat[:, (end - size) * inner : end * inner] for size, end in zip(sizes, ends)]


def concat_axis(layer: Layer, blob: Blob, param: Any, field: str, legacy: str) -> int:
    """The axis of Concat and Slice: ``axis``, or the older ``concat_dim`` / ``slice_dim``."""
    if not param.HasField(legacy):
        return axis_of(layer, blob, param.axis, field, "axis")
    if param.HasField("axis"):
        raise layer.error(f"either axis or {legacy}, not both", field, legacy)
    return axis_of(layer, blob, getattr(param, legacy), field, legacy)


@final
class Concat(Layer):
    TYPE: ClassVar[str] = "Concat"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = MOVED
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, None)

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"axis {param.concat_param.axis}" if param.concat_param.axis != 1 else ""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        first = bottom[0]
        self.axis = concat_axis(self, first, self.param.concat_param, "concat_param", "concat_dim")
        for blob in bottom[1:]:
            if blob.num_axes != first.num_axes or self._rest(blob) != self._rest(first):
                raise self.shape_error(
                    f"the bottoms may differ along axis {self.axis} alone: "
                    f'"{first.name}" {first.shape}, "{blob.name}" {blob.shape}'
                )
        self.sizes = [blob.shape[self.axis] for blob in bottom]
        top[0].reshape(*first.shape[: self.axis], sum(self.sizes), *first.shape[self.axis + 1 :])
        self.is_joint = len(bottom) > 1 and first.count_of(0, self.axis) == 1
        """Whether each of several bottoms is contiguous in the top: all axes before ``axis`` have size 1."""
        self._by_channel = self.axis == channel_axis(first)
        if len(bottom) == 1:
            top[0].share_data(bottom[0])
            top[0].share_diff(bottom[0])

    def _rest(self, blob: Blob) -> tuple[int, ...]:
        return blob.shape[: self.axis] + blob.shape[self.axis + 1 :]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom) == 1:
            return
        for blob, part in zip(bottom, cut(top[0].data, self.axis, self.sizes)):
            copy_matrix(blob.data.reshape(part.shape), part)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if len(bottom) == 1:
            return
        for blob, wanted, part in zip(bottom, propagate_down, cut(top[0].diff, self.axis, self.sizes)):
            if wanted:
                copy_matrix(part, blob.diff.reshape(part.shape))

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if self._by_channel:
            return [concatenated(bottom)]
        return [reduce(ChannelBox.hull, bottom)] if self.axis > 1 or self.axis == 0 else super().bounds(bottom, top)

    # -- compaction: along the channel axis each bottom has its own; along another axis a channel is removed from all --

    SHRINKS: ClassVar[bool] = True
    LOSES_BOTTOMS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.concatenate(bottom) if self._by_channel else np.logical_and.reduce(bottom)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        if not self._by_channel:
            return [top[0] for _ in bottom_constant]
        return np.split(top[0], np.cumsum([len(b) for b in bottom_constant])[:-1])

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.concatenate(bottom) if self._by_channel else np.logical_or.reduce(bottom)]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if self.axis == 0:
            graph.fix_batch(self)
        return [graph.node("Concat", inputs, axis=self.axis)]
