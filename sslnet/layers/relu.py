"""ReLU: y = x where x > 0, negative_slope * x elsewhere; any shape, in place or not.

dx = dy where x > 0, negative_slope * dy elsewhere. In place x is overwritten, and y > 0 is equivalent for
slopes of 0 or more.

Ref: Nair, Hinton 2010; leaky: Maas, Hannun, Ng 2013
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox, bent_at_zero
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph, OnnxOperator

# In place, y or dx is None: see layers/elementwise.py.


@kernel
def _forward(i0, i1, thread, x, y, slope):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        v = x[i]
        y[i] = v if v > 0 else slope * v


@kernel
def _gradient(i0, i1, thread, x, dy, dx, slope):
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        g = dy[i]
        dx[i] = g if x[i] > 0 else slope * g


@final
class ReLU(ChannelWise):
    TYPE: ClassVar[str] = "ReLU"
    KIND: ClassVar[str] = "activation"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (
        OnnxOperator("Relu"),
        OnnxOperator("LeakyRelu", {"alpha": "relu_param.negative_slope"}),
    )
    IN_PLACE: ClassVar[bool] = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if top[0] is not bottom[0]:
            top[0].reshape_like(bottom[0])
        self.slope = self.dtype.type(self.param.relu_param.negative_slope)

    def reads_top(self, in_place: bool) -> bool:
        return in_place

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(-1), top[0].data.reshape(-1)
        spread(_forward, x.size, 1, x, None if top[0] is bottom[0] else y, self.slope)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return not in_place

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        x, dy, dx = bottom[0].data.reshape(-1), top[0].diff.reshape(-1), bottom[0].diff.reshape(-1)
        spread(_gradient, x.size, 1, x, dy, None if top[0] is bottom[0] else dx, self.slope)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        slope = self.slope
        return [bent_at_zero(bottom[0], self.dtype, lambda x: np.where(x > 0, x, slope * x))]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        relu, leaky = self.ONNX
        return [graph.operator(leaky if self.param.relu_param.negative_slope else relu, self.param, inputs)]
