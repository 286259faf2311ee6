"""Exp: y = base ^ (shift + scale x); any shape, in place or not.  dx = dy y scale log(base)."""

from __future__ import annotations

import math
from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import exp
from sslnet.layers.base import Blobs
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxGraph, OnnxOperator, linear


@kernel
def _forward(i0, i1, thread, x, y, inner, outer):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = outer * exp(inner * x[i])


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, inner, outer):
    y, dy = y[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(y.size):
        dx[i] = inner * y[i] * dy[i]


@final
class Exp(Elementwise):
    TYPE: ClassVar[str] = "Exp"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Exp"),)
    MONOTONE: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        param = self.param.exp_param
        if param.base != -1 and param.base <= 0:
            raise self.error(f"base must be positive, or -1 for e, not {param.base:g}", "exp_param", "base")
        log_base = 1.0 if param.base == -1 else math.log(param.base)
        return log_base * param.scale, math.exp(log_base * param.shift)

    def reads_input(self) -> bool:
        return False

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param = self.param.exp_param
        log_base = 1.0 if param.base == -1 else math.log(param.base)
        return [graph.node("Exp", [linear(graph, inputs[0], log_base * param.scale, log_base * param.shift)])]
