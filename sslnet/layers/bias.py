"""Bias: y = x + b, with b repeated along the axes of x that it does not have; in place or not.

b is learned (shape: ``num_axes`` axes of x from ``axis`` on; -1: all of them, 0: one number) or the second bottom,
whose axes are those of x from ``axis`` on. dx = dy; db = dy summed over the axes that b does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph, spread_operand


@kernel
def _add(i0, i1, thread, bias, y):
    """y (outer, size, inner) += bias (size), for the rows [i0, i1) of the outer axis."""
    size, inner = y.shape[1], y.shape[2]
    for i in range(i0, i1):
        if inner == 1:
            row = y[i].reshape(-1)
            for c in range(size):
                row[c] += bias[c]
        else:
            for c in range(size):
                row, value = y[i, c], bias[c]
                for q in range(inner):
                    row[q] += value


@final
class Bias(ChannelWise):
    TYPE: ClassVar[str] = "Bias"
    KIND: ClassVar[str] = "norm"
    CHANNELS: ClassVar[str] = "removed with their parameters; with a second bottom all are kept"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 2)
    IN_PLACE: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom) > 1:
            return
        param = self.param.bias_param
        axis, count = self._axis(bottom), param.num_axes
        if count < -1 or axis + count > bottom[0].num_axes:
            raise self.shape_error(
                f'{count} axes from axis {axis} on are not in "{bottom[0].name}" of shape {bottom[0].shape}',
                "bias_param",
                "num_axes",
            )
        self.new_param(
            bottom[0].shape[axis:] if count == -1 else bottom[0].shape[axis : axis + count], "bias_param", "filler"
        )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, bias = bottom[0], self._bias(bottom)
        axis = self._axis(bottom) if bias.num_axes else 0
        if x.shape[axis : axis + bias.num_axes] != bias.shape:
            raise self.shape_error(
                f"the bias must have the shape of the axes that it is added to: {bias.shape} against "
                f"{x.shape[axis : axis + bias.num_axes]} of {x.shape}"
            )
        self.axis = axis
        self.fold = (x.count_of(0, axis), bias.count, x.count_of(axis + bias.num_axes))
        self._by_image = axis == 0 and bias.num_axes > 0 and x.num_axes > 1
        if top[0] is not x:
            top[0].reshape_like(x)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if top[0] is not bottom[0]:
            top[0].data[...] = bottom[0].data
        y, bias = top[0].data.reshape(self.fold), self._bias(bottom).data.reshape(-1)
        spread(_add, len(y), self.fold[1] * self.fold[2], bias, y)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        learned = len(bottom) == 1
        if self.param_propagate_down[0] if learned else propagate_down[1]:
            bias = self._bias(bottom)
            total = top[0].diff.reshape(self.fold).sum(axis=(0, 2)).reshape(bias.shape)
            bias.diff[...] = bias.diff + total if learned else total
        if propagate_down[0] and top[0] is not bottom[0]:
            bottom[0].diff[...] = top[0].diff

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if not self.blobs or self.axis != 1 or self.fold[1] != bottom[0].size:
            return super().bounds(bottom, top)
        term = self.blobs[0].data.reshape(-1).astype(np.float64)
        slack = 2 * np.finfo(self.dtype).eps * np.where(bottom[0].magnitude > 0, bottom[0].magnitude + np.abs(term), 0)
        return [ChannelBox(bottom[0].low + term, bottom[0].high + term).widened(slack)]

    def _axis(self, bottom: Blobs) -> int:
        return axis_of(self, bottom[0], self.param.bias_param.axis, "bias_param", "axis")

    def _bias(self, bottom: Blobs) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    # -- compaction: channels of a learned bias are removed; with a second bottom all are kept -----------------------

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        # With parameters along axis 0 the images of a batch differ.
        return super().constant_channels(bottom) if self.blobs and not self._by_image else []

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return super().needed_channels(top, bottom_constant) if self.blobs else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return super().followed_channels(bottom) if self.blobs else [np.ones_like(bottom[0])]

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        channel_axis = 1 - self.axis
        if blobs and 0 <= channel_axis < blobs[0].ndim:
            blobs[0] = np.take(blobs[0], top_keep[0], axis=channel_axis)
        return param, blobs

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        return [graph.node("Add", [inputs[0], spread_operand(graph, self, inputs, bottom)])]
