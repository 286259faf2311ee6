"""BNLL: y = log(1 + exp(x)), computed without overflow; any shape, in place or not.  dx = dy sigmoid(x)."""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import sigmoid, softplus
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator


@kernel
def _forward(i0, i1, thread, x, y):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = softplus(x[i])


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx):
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        dx[i] = dy[i] * sigmoid(x[i])


@final
class BNLL(Elementwise):
    TYPE: ClassVar[str] = "BNLL"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Softplus"),)
    MONOTONE: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)
