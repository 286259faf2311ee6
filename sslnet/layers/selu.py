"""SELU: y = lambda x where x > 0, lambda alpha (exp(x) - 1) elsewhere; any shape, in place or not.

dx = lambda dy where x > 0, dy (lambda alpha + y) elsewhere.

Ref: Klambauer et al. 2017, "Self-Normalizing Neural Networks"
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import exp
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator


@kernel
def _forward(i0, i1, thread, x, y, slope, depth):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        v = x[i]
        y[i] = slope * v if v > zero else depth * (exp(v) - one)


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, slope, depth):
    zero = x.dtype.type(0)
    x, y, dy = x[i0:i1], y[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        dx[i] = dy[i] * slope if x[i] > zero else dy[i] * (depth + y[i])


@final
class SELU(Elementwise):
    TYPE: ClassVar[str] = "SELU"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (
        OnnxOperator("Selu", {"alpha": "selu_param.alpha", "gamma": "selu_param.lambda"}),
    )
    BENT: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        slope: float = getattr(self.param.selu_param, "lambda")
        return slope, slope * self.param.selu_param.alpha

    def reads_input(self) -> bool:
        # The gradient reads only the sign of x, which y has as well.
        slope, depth = self.constants()
        return slope <= 0 or depth < 0

    def reads_top(self, in_place: bool) -> bool:
        return True
