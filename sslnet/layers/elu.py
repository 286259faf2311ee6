"""ELU: y = x where x > 0, alpha (exp(x) - 1) elsewhere; any shape, in place or not.

dx = dy where x > 0, dy (alpha + y) elsewhere.

Ref: Clevert, Unterthiner, Hochreiter 2016
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import exp
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator


@kernel
def _forward(i0, i1, thread, x, y, alpha):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        v = x[i]
        y[i] = v if v > zero else alpha * (exp(v) - one)


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, alpha):
    zero = x.dtype.type(0)
    x, y, dy = x[i0:i1], y[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        dx[i] = dy[i] if x[i] > zero else dy[i] * (alpha + y[i])


@final
class ELU(Elementwise):
    TYPE: ClassVar[str] = "ELU"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Elu", {"alpha": "elu_param.alpha"}),)
    BENT: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        return (self.param.elu_param.alpha,)

    def reads_input(self) -> bool:
        # The gradient reads only the sign of x, which y has as well.
        return bool(self.param.elu_param.alpha < 0)

    def reads_top(self, in_place: bool) -> bool:
        return True
