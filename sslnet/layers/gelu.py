"""GELU: y = x P(x), P the distribution function of the standard normal distribution; any shape, in place or not.

dx = dy (P(x) + x p(x)) with p its density.

``approximate: TANH``   s(2 u) instead of P(x), with s the sigmoid and u = sqrt(2 / pi) (x + 0.044715 x^3), which is
                        (1 + tanh(u)) / 2;   dx = dy (s + 2 x s (1 - s) du / dx)

Ref: Hendrycks, Gimpel 2016
"""

from __future__ import annotations

import math
from typing import ClassVar, final

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import exp, normal_cdf, sigmoid
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator

SLOPE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715
DENSITY = 1 / math.sqrt(2 * math.pi)


@kernel
def _forward(i0, i1, thread, x, y, approximate):
    one, slope, cubic = x.dtype.type(1), x.dtype.type(SLOPE), x.dtype.type(CUBIC)
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    if approximate:
        for i in range(x.size):
            y[i] = x[i] * sigmoid(slope * x[i] * (one + cubic * x[i] * x[i]))
    else:
        for i in range(x.size):
            y[i] = x[i] * normal_cdf(x[i])


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, approximate):
    half, one, three = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(3)
    slope, cubic, density = x.dtype.type(SLOPE), x.dtype.type(CUBIC), x.dtype.type(DENSITY)
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    if approximate:
        for i in range(x.size):
            v, square = x[i], cubic * x[i] * x[i]
            s = sigmoid(slope * v * (one + square))
            dx[i] = dy[i] * (s + v * s * (one - s) * slope * (one + three * square))
    else:
        for i in range(x.size):
            v = x[i]
            dx[i] = dy[i] * (normal_cdf(v) + v * density * exp(-half * v * v))


@final
class GELU(Elementwise):
    TYPE: ClassVar[str] = "GELU"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (
        OnnxOperator("Gelu", {"approximate": "gelu_param.approximate"}, opset=20),
    )
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        return (float(self.param.gelu_param.approximate == pb.GELUParameter.TANH),)
