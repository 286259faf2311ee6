"""Scale: y = x s (+ b), with s and b repeated along the axes of x that they do not have; in place or not.

s is learned (shape: ``num_axes`` axes of x from ``axis`` on; -1: all of them, 0: one number) or the second bottom,
whose axes are those of x from ``axis`` on; b, with ``bias_term``, is learned and has the shape of s.
dx = dy s; ds = dy x and db = dy, summed over the axes that s does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.pointwise.channel_reductions import channel_sums
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.runtime.memory import aligned_empty
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.bounds import ChannelBox, scaled
from sslnet.layers.channels import channel_axis
from sslnet.layers.onnx import OnnxGraph, spread_operand, spread_param


@kernel
def _scale(r0, r1, thread, x, y, scale, bias):
    """y = x scale + bias, for the rows [r0, r1) of (outer * scales, values)."""
    c = r0 % scale.size
    for r in range(r0, r1):
        xr, yr = x[r], y[r]
        s, b = scale[c], bias[c]
        for q in range(xr.size):
            yr[q] = xr[q] * s + b
        c = c + 1 if c + 1 < scale.size else 0


@kernel
def _scale_in_place(r0, r1, thread, y, kept, scale, bias):
    """kept = y, then y = kept scale + bias."""
    c = r0 % scale.size
    for r in range(r0, r1):
        yr, kr = y[r], kept[r]
        s, b = scale[c], bias[c]
        for q in range(yr.size):
            kr[q] = yr[q]
        for q in range(yr.size):
            yr[q] = kr[q] * s + b
        c = c + 1 if c + 1 < scale.size else 0


@kernel
def _scale_over(r0, r1, thread, y, scale, bias):
    """y = y scale + bias."""
    c = r0 % scale.size
    for r in range(r0, r1):
        yr, s, b = y[r], scale[c], bias[c]
        for q in range(yr.size):
            yr[q] = yr[q] * s + b
        c = c + 1 if c + 1 < scale.size else 0


@kernel
def _gradient(r0, r1, thread, dy, dx, scale):
    """dx = dy scale; dx may be dy."""
    above = np.empty(dy.shape[1], dy.dtype)
    c = r0 % scale.size
    if dy.shape[1] == 1:
        # For rows of one value the copy would cost more than the computation.
        for r in range(r0, r1):
            dx[r, 0] = dy[r, 0] * scale[c]
            c = c + 1 if c + 1 < scale.size else 0
        return
    for r in range(r0, r1):
        dr, s = dx[r], scale[c]
        above[:] = dy[r]
        for q in range(dr.size):
            dr[q] = above[q] * s
        c = c + 1 if c + 1 < scale.size else 0


@final
class Scale(Layer):
    TYPE: ClassVar[str] = "Scale"
    KIND: ClassVar[str] = "norm"
    CHANNELS: ClassVar[str] = "removed with their parameters; if a second bottom has other channels, all are kept"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 2)
    IN_PLACE: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.scale_param
        if len(bottom) > 1:
            shape = bottom[1].shape
        else:
            axis, count = self._axis(bottom), param.num_axes
            if count < -1 or axis + count > bottom[0].num_axes:
                raise self.shape_error(
                    f'{count} axes from axis {axis} on are not in "{bottom[0].name}" of shape {bottom[0].shape}',
                    "scale_param",
                    "num_axes",
                )
            shape = bottom[0].shape[axis:] if count == -1 else bottom[0].shape[axis : axis + count]
            self.new_param(shape, "scale_param", "filler", default=1)
        if param.bias_term:
            self.new_param(shape, "scale_param", "bias_filler")
        self._input = np.empty(0, self.dtype)
        self._given: Callable[[], np.ndarray] | None = None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, scale = bottom[0], self._scale(bottom)
        axis = self._axis(bottom) if scale.num_axes else 0
        along = x.shape[axis : axis + scale.num_axes]
        if along != scale.shape:
            raise self.shape_error(
                f"the scale must have the shape of the axes that it multiplies: {scale.shape} against {along} of {x.shape}"
            )
        self.axis = axis
        outer, inner = x.count_of(0, axis), x.count_of(axis + scale.num_axes)
        self.fold, self.rows = (outer, scale.count, inner), (outer * scale.count, inner)
        self.size = scale.count
        top[0].reshape_like(x)
        if top[0] is x and self.context.backward and self._given is None and self._input.size != x.count:
            self._input = aligned_empty(x.count, self.dtype)
        self._channels_at = channel_axis(x) - axis
        """Axis of the scale that corresponds to the channels of x; out of range when there is none."""
        self._second_is_by_channel = (
            len(bottom) > 1 and bottom[1].num_axes > 0 and self._channels_at == channel_axis(bottom[1])
        )
        self._total, self._dot, self._zeros = np.zeros(self.size), np.zeros(self.size), np.zeros(self.size, self.dtype)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self.rows), top[0].data.reshape(self.rows)
        scale = self._scale(bottom).data.reshape(-1)
        bias = self.blobs[-1].data.reshape(-1) if self.param.scale_param.bias_term else self._zeros
        if top[0] is bottom[0] and not self.context.backward:
            spread(_scale_over, *self.rows, y, scale, bias)
        elif self._given is not None:
            spread(_scale, *self.rows, self._given().reshape(self.rows), y, scale, bias)
        elif top[0] is bottom[0]:
            spread(_scale_in_place, *self.rows, y, self._input.reshape(self.rows), scale, bias)
        else:
            spread(_scale, *self.rows, x, y, scale, bias)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index > 0 or not in_place

    def take_input(self, given: Callable[[], np.ndarray]) -> None:
        """In place, replaces the saved copy of x by ``given()``, which returns x, flat, after each forward pass."""
        self._given, self._input = given, np.empty(0, self.dtype)

    def put_input(self, x: np.ndarray) -> None:
        """In place, saves x as ``forward`` does before it overwrites x."""
        if self._given is None and self._input.size:
            self._input[:] = x.reshape(-1)

    def _kept_input(self) -> np.ndarray:
        """The values of x before ``forward`` overwrote them, flat."""
        return self._input if self._given is None else self._given()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        learned, has_bias = len(bottom) == 1, self.param.scale_param.bias_term
        dy, scale = top[0].diff, self._scale(bottom)
        scale_wanted = self.param_propagate_down[0] if learned else propagate_down[1]
        bias_wanted = has_bias and self.param_propagate_down[-1]
        if scale_wanted or bias_wanted:
            x = self._kept_input() if top[0] is bottom[0] else bottom[0].data
            cost = self.fold[0] * self.fold[2]
            arrays = (dy.reshape(self.fold), x.reshape(self.fold), self._zeros)
            spread(channel_sums, self.size, cost, *arrays, self._total, self._dot)
        if scale_wanted:
            gradient = self._dot.reshape(scale.shape)
            scale.diff[...] = scale.diff + gradient if learned else gradient
        if bias_wanted:
            bias = self.blobs[-1].diff
            bias += self._total.reshape(scale.shape)
        if propagate_down[0]:
            dx = bottom[0].diff.reshape(self.rows)
            spread(_gradient, *self.rows, dy.reshape(self.rows), dx, scale.data.reshape(-1))

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return (2 if self.param.scale_param.bias_term else 1) * bottom[0].count

    def _axis(self, bottom: Blobs) -> int:
        return axis_of(self, bottom[0], self.param.scale_param.axis, "scale_param", "axis")

    def _scale(self, bottom: Blobs) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    # -- groups of a penalty -------------------------------------------------------------------------------------------

    def group_tiles(self, index: int) -> dict[str, tuple[int, int]]:
        """The group FILTER, one value per channel, where the blob has one value for each."""
        return {"FILTER": (1, 1)} if self.axis == 1 and self.blobs[index].num_axes == 1 else {}

    # -- compaction --------------------------------------------------------------------------------------------------
    #
    # A channel is removed from x, y and the parameters, and from a second bottom with the same channels as x (squeeze
    # and excitation). With any other second bottom, all channels of both bottoms are kept.

    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        if self._by_image() or not self._is_tied(bottom):
            return []
        return [np.logical_and.reduce(bottom) | self._zero_scales(bottom[0])]

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(zero)] if self._second_is_by_channel and not self._by_image() else []

    def factors(self) -> list[bool]:
        return [False, True] if self._second_is_by_channel and not self.blobs and self.axis == 0 else []

    def _by_image(self) -> bool:
        """Whether a parameter has axis 0 of x, so that the images of a batch are scaled differently."""
        return self._channels_at == 1 and any(blob.num_axes for blob in self.blobs)

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [top[0] for _ in bottom_constant] if self._is_tied(bottom_constant) else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(bottom)] if self._is_tied(bottom) else [np.ones_like(bottom[0])]

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if len(bottom) > 1 or self.axis != 1 or self.size != bottom[0].size:
            return super().bounds(bottom, top)
        factor = self.blobs[0].data.reshape(-1).astype(np.float64)
        term = self.blobs[1].data.reshape(-1).astype(np.float64) if len(self.blobs) > 1 else np.zeros(self.size)
        result = scaled(bottom[0], factor)
        size = np.where(factor == 0, 0, bottom[0].magnitude * np.abs(factor))
        slack = np.where(size > 0, 4 * np.finfo(self.dtype).eps * (size + np.abs(term)), 0)
        return [ChannelBox(result.low + term, result.high + term).widened(slack)]

    def _zero_scales(self, channels: BoolVector) -> BoolVector:
        """(channels) bool: whether the learned scale of the channel is 0."""
        axis = self._channels_at
        if self._second_is_by_channel or not 0 <= axis < self.blobs[0].num_axes:
            return np.zeros_like(channels)
        nonzero: BoolVector = np.moveaxis(self.blobs[0].data != 0, axis, 0).reshape(len(channels), -1).any(axis=1)
        return ~nonzero

    def _is_tied(self, bottom: list[BoolVector]) -> bool:
        return len(bottom) == 1 or self._second_is_by_channel

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        axis = self._channels_at
        if 0 <= axis < (blobs[0].ndim if blobs else 0):
            blobs = [np.take(blob, top_keep[0], axis=axis) for blob in blobs]
        return param, blobs

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        value = graph.node("Mul", [inputs[0], spread_operand(graph, self, inputs, bottom)])
        if self.param.scale_param.bias_term:
            value = graph.node("Add", [value, spread_param(graph, self, bottom[0], 1 if len(bottom) == 1 else 0)])
        return [value]
