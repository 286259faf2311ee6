"""Permute: reorders the axes: axis i of the top is axis order[i] of the bottom.

Axes that ``order`` does not name follow in ascending order.  dx = dy with the inverse permutation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import spread
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channels import ChannelKeeper
from sslnet.layers.concat import copy_rows
from sslnet.layers.onnx import OnnxGraph


@final
class Permute(ChannelKeeper):
    TYPE: ClassVar[str] = "Permute"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = (
        "removed with their values in the top; if images are mixed or the order of channels changes, all are kept"
    )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, order = bottom[0], list(self.param.permute_param.order)
        for index, axis in enumerate(order):
            if axis >= x.num_axes or axis in order[:index]:
                why = "is given twice" if axis in order[:index] else f"is not an axis of {x.shape}"
                raise self.shape_error(f"order: {axis} {why}", "permute_param", "order", index)
        self.order = order + [axis for axis in range(x.num_axes) if axis not in order]
        top[0].reshape(*(x.shape[axis] for axis in self.order))
        self.keep_channels(top[0], self.order[1:2] == [1])

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [bottom[0]] if self._keeps_channels else super().bounds(bottom, top)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self._copy(bottom[0].data.transpose(self.order), top[0].data)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self._copy(top[0].diff.transpose(np.argsort(self.order)), bottom[0].diff)

    @staticmethod
    def _copy(source: np.ndarray, target: np.ndarray) -> None:
        spread(copy_rows, len(target), target[:1].size, source, target)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if self.order[0] != 0:
            graph.fix_batch(self)
        return [graph.node("Transpose", inputs, perm=list(self.order))]
