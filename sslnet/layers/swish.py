"""Swish: y = x s with s = sigmoid(beta x); any shape, in place or not.  dx = dy (beta y + s (1 - beta y)).

Ref: Ramachandran, Zoph, Le 2017
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import sigmoid
from sslnet.layers.base import Blobs
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxGraph, linear


@kernel
def _forward(i0, i1, thread, x, y, beta):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = x[i] * sigmoid(beta * x[i])


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, beta):
    one = x.dtype.type(1)
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        s = sigmoid(beta * x[i])
        t = beta * x[i] * s
        dx[i] = dy[i] * (t + s * (one - t))


@final
class Swish(Elementwise):
    TYPE: ClassVar[str] = "Swish"
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        return (self.param.swish_param.beta,)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        steep = linear(graph, inputs[0], self.param.swish_param.beta)
        return [graph.node("Mul", [inputs[0], graph.node("Sigmoid", [steep])])]
