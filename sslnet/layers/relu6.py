"""ReLU6: y = min(max(x, 0), 6) + negative_slope min(x, 0); any shape, in place or not.

dx = dy where 0 < x < 6, negative_slope dy where x <= 0, else 0.

Ref: Krizhevsky 2010; Sandler et al. 2018, MobileNet v2
"""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.base import Blobs
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxGraph


@kernel
def _forward(i0, i1, thread, x, y, slope):
    zero, six = x.dtype.type(0), x.dtype.type(6)
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        v = slope * x[i] if x[i] < zero else x[i]
        y[i] = six if v > six else v


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, slope):
    zero, six = x.dtype.type(0), x.dtype.type(6)
    y, dy = y[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(y.size):
        d = slope * dy[i] if y[i] <= zero else dy[i]
        dx[i] = zero if y[i] >= six else d


@final
class ReLU6(Elementwise):
    TYPE: ClassVar[str] = "ReLU6"
    MONOTONE: ClassVar[bool] = True
    ULPS: ClassVar[int] = 0
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        slope = self.param.relu6_param.negative_slope
        if slope < 0:
            raise self.error(f"negative_slope must not be negative, not {slope:g}", "relu6_param", "negative_slope")
        return (slope,)

    def reads_input(self) -> bool:
        # y suffices: comparisons with 0 and 6 have the same results for y as for x.
        return False

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        return [graph.node("Clip", [inputs[0], graph.constant(0), graph.constant(6)])]
