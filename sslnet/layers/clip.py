"""Clip: y = max(min, min(x, max)); any shape, in place or not.  dx = dy where min <= x <= max, else 0."""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.base import Blobs
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxGraph


@kernel
def _forward(i0, i1, thread, x, y, low, high):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        v = x[i]
        v = high if v > high else v
        y[i] = low if v < low else v


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx, low, high):
    zero = x.dtype.type(0)
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        inside = (x[i] >= low) & (x[i] <= high)
        dx[i] = dy[i] if inside else zero


@final
class Clip(Elementwise):
    TYPE: ClassVar[str] = "Clip"
    MONOTONE: ClassVar[bool] = True
    ULPS: ClassVar[int] = 0
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def constants(self) -> tuple[float, ...]:
        param = self.param.clip_param
        for bound in ("min", "max"):
            if not param.HasField(bound):
                raise self.error(f"Clip needs both bounds; {bound} is missing", "clip_param")
        if param.min > param.max:
            raise self.error(f"min must not exceed max: {param.min:g} > {param.max:g}", "clip_param", "min")
        return param.min, param.max

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param = self.param.clip_param
        return [graph.node("Clip", [inputs[0], graph.constant(param.min), graph.constant(param.max)])]
