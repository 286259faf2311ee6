"""Swish: y = x s with s = sigmoid(beta x); any shape, in place or not.  dx = dy (beta y + s (1 - beta y)).

SiLU, as in PyTorch and ONNX, is Swish with beta 1.

Ref: Ramachandran, Zoph, Le 2017 (Swish); Elfwing, Uchibe, Doya 2017 (SiLU)
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import sigmoid
from sslnet.layers.base import Blobs
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxGraph, OnnxOperator, linear


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


class Swish(Elementwise):
    TYPE: ClassVar[str] = "Swish"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Swish", {"alpha": "swish_param.beta"}, opset=24),)
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        return (self.param.swish_param.beta,)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        """Adds Sigmoid and Mul nodes, which all operator sets include; the importer joins them into one layer again."""
        steep = linear(graph, inputs[0], self.constants()[0])
        return [graph.node("Mul", [inputs[0], graph.node("Sigmoid", [steep])])]


@final
class SiLU(Swish):
    """Swish with beta 1: y = x sigmoid(x)."""

    TYPE: ClassVar[str] = "SiLU"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = ()

    def constants(self) -> tuple[float, ...]:
        return (1.0,)
