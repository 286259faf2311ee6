"""Softmax: y = exp(x) / sum of exp(x), along ``axis`` (default 1), for any shape; in place or not.

dx = y (dy - sum of y dy).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet.kernels.pointwise.softmax import softmax, softmax_gradient
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.onnx import OnnxGraph


@final
class Softmax(Layer):
    TYPE: ClassVar[str] = "Softmax"
    KIND: ClassVar[str] = "result"
    IN_PLACE: ClassVar[bool] = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if top[0] is not bottom[0]:
            top[0].reshape_like(bottom[0])
        axis = axis_of(self, bottom[0], self.param.softmax_param.axis, "softmax_param", "axis")
        self.fold = (bottom[0].count_of(0, axis), bottom[0].shape[axis], bottom[0].count_of(axis + 1))

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [ChannelBox.of(0, 1, bottom[0].size).rounded(self.dtype, 4)]

    def reads_top(self, in_place: bool) -> bool:
        return True

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        softmax(bottom[0].data.reshape(self.fold), top[0].data.reshape(self.fold))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            y, dy, dx = (a.reshape(self.fold) for a in (top[0].data, top[0].diff, bottom[0].diff))
            softmax_gradient(y, dy, dx)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        return [graph.node("Softmax", inputs, axis=self.param.softmax_param.axis)]
