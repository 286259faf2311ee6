"""HardSwish: y = x min(max(x / 6 + 1 / 2, 0), 1); any shape, in place or not.

dx = 0 where x < -3, dy where x > 3, dy (x / 3 + 1 / 2) between them.

Ref: Howard et al. 2019, "Searching for MobileNetV3"
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator


@kernel
def _forward(i0, i1, thread, x, y):
    zero, half, one, sixth = x.dtype.type(0), x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(1 / 6)
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = x[i] * min(max(x[i] * sixth + half, zero), one)


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx):
    zero, half, three, third = x.dtype.type(0), x.dtype.type(0.5), x.dtype.type(3), x.dtype.type(1 / 3)
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        d = dy[i] if x[i] > three else dy[i] * (x[i] * third + half)
        dx[i] = zero if x[i] < -three else d


@final
class HardSwish(Elementwise):
    TYPE: ClassVar[str] = "HardSwish"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("HardSwish"),)
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)
