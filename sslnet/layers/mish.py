"""Mish: y = x t with t = tanh(log(1 + exp(x))); any shape, in place or not.

With e = exp(x): t = e (e + 2) / (e (e + 2) + 2), dx = dy (t + 4 x e (e + 1) / (e (e + 2) + 2)^2). For x > 20, where
t is 1 in both precisions, e is exp(20).

Ref: Misra 2019
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import exp
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator

LARGEST = 20.0


@kernel
def _forward(i0, i1, thread, x, y):
    two, largest = x.dtype.type(2), x.dtype.type(LARGEST)
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        v = x[i]
        e = exp(largest if v > largest else v)
        n = e * (e + two)
        y[i] = v * (n / (n + two))


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx):
    one, two, four, largest = x.dtype.type(1), x.dtype.type(2), x.dtype.type(4), x.dtype.type(LARGEST)
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        v = x[i]
        e = exp(largest if v > largest else v)
        n = e * (e + two)
        d = n + two
        dx[i] = dy[i] * (n / d + v * (four * e / d) * ((e + one) / d))


@final
class Mish(Elementwise):
    TYPE: ClassVar[str] = "Mish"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Mish", opset=18),)
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)
