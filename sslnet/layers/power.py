"""Power: y = (shift + scale x) ^ power; any shape, in place or not.

dx = dy power scale (shift + scale x) ^ (power - 1), and 0 when power or scale is 0. A negative base under a power that is
not whole gives NaN.
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.elementary import power as power_of
from sslnet.kernels.jit import kernel
from sslnet.layers.elementwise import Elementwise, Kernel


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

    def reads_input(self) -> bool:
        return self.param.power_param.power != 1

    def reads_top(self, in_place: bool) -> bool:
        return False
