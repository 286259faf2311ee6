"""Threshold: y = 1 where x > threshold, else 0; any shape, in place or not. There is no gradient."""

from __future__ import annotations

from typing import ClassVar, final

from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.base import Blobs
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.no_gradient import NoInputGradient
from sslnet.layers.onnx import FLOAT, OnnxGraph


@kernel
def _forward(i0, i1, thread, x, y, threshold):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = one if x[i] > threshold else zero


@final
class Threshold(NoInputGradient, Elementwise):
    TYPE: ClassVar[str] = "Threshold"
    MONOTONE: ClassVar[bool] = True
    ULPS: ClassVar[int] = 0
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward,)

    def constants(self) -> tuple[float, ...]:
        return (self.param.threshold_param.threshold,)

    def reads_input(self) -> bool:
        return False

    def reads_top(self, in_place: bool) -> bool:
        return False

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        above = graph.node("Greater", [inputs[0], graph.constant(self.param.threshold_param.threshold)])
        return [graph.node("Cast", [above], to=FLOAT)]
