"""Power: y = (shift + scale x) ^ power; any shape, in place or not.

dx = dy power scale (shift + scale x) ^ (power - 1), and 0 when power or scale is 0. A negative base with a
power that is not whole gives NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import power as power_of
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.bounds import ChannelBox, mapped, scaled
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.kept_columns import drop_columns
from sslnet.layers.onnx import OnnxGraph, linear

OPERATORS = {-1.0: "Reciprocal", 0.5: "Sqrt"}
"""ONNX operators for some powers."""


@kernel
def _forward(i0, i1, thread, x, y, power, scale, shift):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    if power == 1:
        for i in range(x.size):
            y[i] = shift + scale * x[i]
    elif power == 2:
        for i in range(x.size):
            v = shift + scale * x[i]
            y[i] = v * v
    else:
        for i in range(x.size):
            y[i] = power_of(shift + scale * x[i], power)


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, power, scale, shift):
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    slope = power * scale
    if slope == 0:
        dx[:] = 0
    elif power == 1:
        for i in range(x.size):
            dx[i] = slope * dy[i]
    elif power == 2:
        for i in range(x.size):
            dx[i] = slope * (shift + scale * x[i]) * dy[i]
    else:
        less = power - x.dtype.type(1)
        for i in range(x.size):
            dx[i] = slope * power_of(shift + scale * x[i], less) * dy[i]


@final
class Power(Elementwise):
    TYPE: ClassVar[str] = "Power"
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        param = self.param.power_param
        return param.power, param.scale, param.shift

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        self._pixel_axes = 0 if top[0] is bottom[0] else max(0, bottom[0].num_axes - 2)

    def reads_input(self) -> bool:
        return bool(self.param.power_param.power != 1)

    def reads_top(self, in_place: bool) -> bool:
        return False

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        power, scale, shift = (float(number) for number in self._constants)
        base = scaled(bottom[0], np.full(bottom[0].size, scale))
        base = ChannelBox(base.low + shift, base.high + shift)
        if scale:
            base = base.widened(4 * np.finfo(self.dtype).eps * (base.magnitude + abs(shift)))
        if power == 0:
            return [ChannelBox.of(1, 1, base.size)]
        if power == 1:
            return [base]
        steps = 16 + 2 * int(min(abs(power), 1e6))
        result = mapped(base, self.dtype, lambda x: np.power(x, self.dtype.type(power)), steps=steps)
        if power > 0 and power == int(power):
            inside = (base.low < 0) & (base.high > 0)
            return [ChannelBox(np.where(inside, np.minimum(result.low, 0), result.low), result.high)]
        positive = base.low > 0
        return [ChannelBox(np.where(positive, result.low, -np.inf), np.where(positive, result.high, np.inf))]

    # -- compaction ----------------------------------------------------------------------------------------------------
    #
    # With scale or power 0 all values are the same number, and only the bottom's shape matters (the zero channels that
    # pad a ResNet's shortcut). Bottom channels are then removed independently of the top's: where their numbers differ,
    # a 1 x 1 convolution with zero weights replaces the layer.

    def reads_any_channel(self) -> bool:
        return self._is_constant() and self._pixel_axes > 0

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.ones_like(bottom[0])] if self._is_constant() else super().constant_channels(bottom)

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        if self.reads_any_channel():
            return [np.zeros_like(bottom_constant[0])]
        return super().needed_channels(top, bottom_constant)

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [] if self.reads_any_channel() else super().followed_channels(bottom)

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        channels, filters = len(bottom_keep[0]), len(top_keep[0])
        if not self.reads_any_channel() or channels == filters:
            return param, blobs
        param.ClearField("power_param")
        param.type = "Convolution"
        value = float(self.param.power_param.shift**self.param.power_param.power)
        param.convolution_param.num_output = filters
        param.convolution_param.kernel_size[:] = [1]
        param.convolution_param.bias_term = value != 0
        weights = [np.zeros((filters, channels, *(1,) * self._pixel_axes)), np.full(filters, value)]
        for _ in weights[: 1 + (value != 0)]:
            param.param.add(lr_mult=0, decay_mult=0)
        return param, weights[: len(param.param)]

    def shrink_columns(self, param: Any, blobs: list[np.ndarray], *, standard_only: bool) -> list[np.ndarray]:
        if not blobs or standard_only:
            return blobs
        return [drop_columns(param.convolution_param, blobs[0]), *blobs[1:]]

    def _is_constant(self) -> bool:
        param = self.param.power_param
        return bool(param.power == 0 or (param.scale == 0 and param.shift >= 0 and param.power > 0))

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param = self.param.power_param
        value = linear(graph, inputs[0], param.scale, param.shift)
        if param.power in OPERATORS:
            return [graph.node(OPERATORS[param.power], [value])]
        return [value if param.power == 1 else graph.node("Pow", [value, graph.constant(param.power)])]
