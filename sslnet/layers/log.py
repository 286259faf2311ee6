"""Log: y = log(shift + scale x) / log(base); any shape, in place or not.

dx = dy scale / (log(base) (shift + scale x)).
"""

from __future__ import annotations

import math
from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import log
from sslnet.layers.base import Blobs
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxGraph, OnnxOperator, linear


@kernel
def _forward(i0, i1, thread, x, y, scale, shift, factor):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = factor * log(shift + scale * x[i])


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, scale, shift, factor):
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        dx[i] = dy[i] * factor * scale / (shift + scale * x[i])


@final
class Log(Elementwise):
    TYPE: ClassVar[str] = "Log"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Log"),)
    MONOTONE: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        param = self.param.log_param
        if param.base != -1 and (param.base <= 0 or param.base == 1):
            raise self.error(f"base must be positive and not 1, or -1 for e, not {param.base:g}", "log_param", "base")
        return param.scale, param.shift, 1.0 if param.base == -1 else 1 / math.log(param.base)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param = self.param.log_param
        value = graph.node("Log", [linear(graph, inputs[0], param.scale, param.shift)])
        return [value if param.base == -1 else graph.node("Mul", [value, graph.constant(1 / math.log(param.base))])]
