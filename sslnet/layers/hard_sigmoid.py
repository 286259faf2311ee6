"""HardSigmoid: y = max(0, min(1, alpha x + beta)); any shape, in place or not.  dx = alpha dy where 0 < y < 1, else 0.

alpha is 0.2 by default, as in ONNX; PyTorch, Keras 3 and MobileNet v3 use 1 / 6.

Ref: Courbariaux, Bengio, David 2015, "BinaryConnect"
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator


@kernel
def _forward(i0, i1, thread, x, y, alpha, beta):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = min(max(alpha * x[i] + beta, zero), one)


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, alpha, beta):
    zero, one = y.dtype.type(0), y.dtype.type(1)
    y, dy = y[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(y.size):
        inside = (y[i] > zero) & (y[i] < one)
        dx[i] = alpha * dy[i] if inside else zero


@final
class HardSigmoid(Elementwise):
    TYPE: ClassVar[str] = "HardSigmoid"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (
        OnnxOperator("HardSigmoid", {"alpha": "hard_sigmoid_param.alpha", "beta": "hard_sigmoid_param.beta"}),
    )
    MONOTONE: ClassVar[bool] = True
    ULPS: ClassVar[int] = 0
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        return self.param.hard_sigmoid_param.alpha, self.param.hard_sigmoid_param.beta

    def reads_input(self) -> bool:
        return False
