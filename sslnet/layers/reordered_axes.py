"""ReorderedAxes: base of layers whose top is the bottom with its axes in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sslnet.kernels.runtime.copying import copy_rows
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channels import ChannelKeeper
from sslnet.layers.onnx import OnnxGraph


class ReorderedAxes(ChannelKeeper):
    """Axis i of the top is axis ``order[i]`` of the bottom.  dx = dy with the inverse permutation."""

    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = (
        "removed with their values in the top; if images are mixed or the order of channels changes, all are kept"
    )

    def reorder(self, bottom: Blobs, top: Blobs, order: list[int], keeps: bool) -> None:
        """Sets the order of all axes; for ``reshape``.  keeps: whether channels stay channels, in their order"""
        self.order = order
        top[0].reshape(*(bottom[0].shape[axis] for axis in order))
        self.keep_channels(top[0], keeps)

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
