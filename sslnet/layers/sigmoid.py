"""Sigmoid: y = 1 / (1 + exp(-x)); any shape, in place or not.  dx = dy y (1 - y)."""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import sigmoid
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator


@kernel
def _forward(i0, i1, thread, x, y):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = sigmoid(x[i])


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx):
    one = y.dtype.type(1)
    y, dy = y[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(y.size):
        dx[i] = dy[i] * y[i] * (one - y[i])


@final
class Sigmoid(Elementwise):
    TYPE: ClassVar[str] = "Sigmoid"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Sigmoid"),)
    MONOTONE: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def reads_input(self) -> bool:
        return False
