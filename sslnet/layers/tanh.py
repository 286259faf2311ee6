"""TanH: y = tanh(x); any shape, in place or not.  dx = dy (1 - y^2)."""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import tanh
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator


@kernel
def _forward(i0, i1, thread, x, y):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = tanh(x[i])


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx):
    one = y.dtype.type(1)
    y, dy = y[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(y.size):
        dx[i] = dy[i] * (one - y[i] * y[i])


@final
class TanH(Elementwise):
    TYPE: ClassVar[str] = "TanH"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Tanh"),)
    MONOTONE: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def reads_input(self) -> bool:
        return False
