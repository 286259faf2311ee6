"""BNLL: y = log(1 + exp(x)), computed as max(x, 0) + log(1 + exp(-|x|)); any shape, in place or not.  dx = dy sigmoid(x)."""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.elementary import exp, log1p, sigmoid
from sslnet.kernels.jit import kernel
from sslnet.layers.elementwise import Elementwise, Kernel


@kernel
def _forward(i0, i1, thread, x, y):
    zero = x.dtype.type(0)
    x, y = x[i0:i1], y[i0:i1]
    for i in range(x.size):
        y[i] = max(x[i], zero) + log1p(exp(-abs(x[i])))


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx):
    x, dy, dx = x[i0:i1], dy[i0:i1], dx[i0:i1]
    for i in range(x.size):
        dx[i] = dy[i] * sigmoid(x[i])


@final
class BNLL(Elementwise):
    TYPE: ClassVar[str] = "BNLL"
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)
