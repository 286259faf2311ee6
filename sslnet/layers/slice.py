"""Slice: cuts its bottom along one axis (default 1) into its tops, at ``slice_point`` or into equal parts.

dx = the diffs of the tops, joined along the axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, final

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.runtime.copying import copy_matrix
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channels import MOVED, channel_axis
from sslnet.layers.concat import concat_axis, cut
from sslnet.layers.onnx import OnnxGraph


@final
class Slice(Layer):
    TYPE: ClassVar[str] = "Slice"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = MOVED
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"axis {param.slice_param.axis}" if param.slice_param.axis != 1 else ""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        self.axis = concat_axis(self, x, self.param.slice_param, "slice_param", "slice_dim")
        self.sizes = self._sizes(x, len(top))
        for blob, size in zip(top, self.sizes):
            blob.reshape(*x.shape[: self.axis], size, *x.shape[self.axis + 1 :])
        self._by_channel = self.axis == channel_axis(x)
        if len(top) == 1:
            top[0].share_data(x)
            top[0].share_diff(x)

    def _sizes(self, x: Blob, tops: int) -> list[int]:
        points, size = list(self.param.slice_param.slice_point), x.shape[self.axis]
        if not points:
            if size % tops:
                raise self.shape_error(
                    f'axis {self.axis} of "{x.name}" has {size} elements, which {tops} tops cannot share equally',
                    hint="set slice_point to cut at other places",
                )
            return [size // tops] * tops
        if len(points) != tops - 1:
            raise self.error(
                f"{tops} tops need {tops - 1} slice_point, not {len(points)}", "slice_param", "slice_point", 0
            )
        edges = [0, *points, size]
        for index, (before, after) in enumerate(pairwise(edges)):
            if after <= before:
                raise self.shape_error(
                    f"slice_point must rise and stay inside axis {self.axis} of {size} elements: {points}",
                    "slice_param",
                    "slice_point",
                    min(index, len(points) - 1),
                )
        return [after - before for before, after in pairwise(edges)]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if len(top) == 1:
            return
        for blob, part in zip(top, cut(bottom[0].data, self.axis, self.sizes)):
            copy_matrix(part, blob.data.reshape(part.shape))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if len(top) == 1 or not propagate_down[0]:
            return
        for blob, part in zip(top, cut(bottom[0].diff, self.axis, self.sizes)):
            copy_matrix(blob.diff.reshape(part.shape), part)

    # -- compaction: along the channel axis each top has its own; along another axis a channel is removed from all -----

    SHRINKS: ClassVar[bool] = True
    LOSES_TOPS: ClassVar[bool] = True

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if not self._by_channel:
            return [bottom[0] for _ in top]
        edges = np.cumsum([0, *self.sizes])
        return [bottom[0].take(slice(int(a), int(b))) for a, b in pairwise(edges)]

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return self._cut(bottom[0])

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.concatenate(top) if self._by_channel else np.logical_or.reduce(top)]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return self._cut(bottom[0])

    def _cut(self, channels: BoolVector) -> list[BoolVector]:
        return np.split(channels, np.cumsum(self.sizes)[:-1]) if self._by_channel else [channels] * len(self.sizes)

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if self._by_channel:
            points = np.cumsum([len(keep) for keep in top_keep if len(keep)])[:-1]
            param.slice_param.slice_point[:] = [int(point) for point in points]
        return param, blobs

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if len(top) == 1:
            return inputs
        if self.axis == 0:
            graph.fix_batch(self)
        return list(graph.node("Split", [inputs[0], graph.integers(self.sizes)], outputs=len(top), axis=self.axis))
