"""MVN: normalises each channel of each image, or each image (``across_channels``), to mean 0 and variance 1.

Without ``normalize_variance`` only the mean is subtracted.
y = x - mean, or (x - mean) / (sqrt(variance) + eps), with the population variance (divided by the number of values);
dx = dy - mean(dy), or (dy - mean(dy) - y mean(dy y)) / (sqrt(variance) + eps), as in Caffe; it is exact for eps = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph


@kernel
def _forward(r0, r1, thread, x, y, mean, factor, normalize, eps):
    """Normalises each of the rows [r0, r1) separately."""
    for r in range(r0, r1):
        xr, yr = x[r], y[r]
        total = 0.0
        for q in range(xr.size):
            total += xr[q]
        m = x.dtype.type(total / xr.size)
        square = 0.0
        for q in range(xr.size):
            square += (xr[q] - m) * (xr[q] - m)
        k = x.dtype.type(1 / (math.sqrt(square / xr.size) + eps) if normalize else 1.0)
        mean[r], factor[r] = m, k
        for q in range(xr.size):
            yr[q] = (xr[q] - m) * k


@kernel
def _gradient(r0, r1, thread, x, dy, dx, mean, factor, normalize):
    for r in range(r0, r1):
        xr, above, below = x[r], dy[r], dx[r]
        m, k = mean[r], factor[r]
        total, dot = 0.0, 0.0
        for q in range(xr.size):
            total += above[q]
            dot += above[q] * (xr[q] - m)
        level = x.dtype.type(total / xr.size)
        slope = x.dtype.type(dot / xr.size * k * k if normalize else 0.0)
        for q in range(xr.size):
            below[q] = k * (above[q] - level - slope * (xr[q] - m))


@final
class MVN(ChannelWise):
    TYPE: ClassVar[str] = "MVN"
    KIND: ClassVar[str] = "norm"
    CHANNELS: ClassVar[str] = "within channels: removed in bottom and top together; across channels: all are kept"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if x.num_axes < 2:
            raise self.shape_error(f'MVN needs images and channels: "{x.name}" has shape {x.shape}')
        first = 1 if self.param.mvn_param.across_channels else 2
        self.rows = (x.count_of(0, first), x.count_of(first))
        self._mean, self._factor = np.zeros((2, self.rows[0]), self.dtype)
        top[0].reshape_like(x)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.mvn_param
        x, y = bottom[0].data.reshape(self.rows), top[0].data.reshape(self.rows)
        spread(_forward, *self.rows, x, y, self._mean, self._factor, param.normalize_variance, param.eps)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dy, dx = (a.reshape(self.rows) for a in (bottom[0].data, top[0].diff, bottom[0].diff))
            normalize = self.param.mvn_param.normalize_variance
            spread(_gradient, *self.rows, x, dy, dx, self._mean, self._factor, normalize)

    # -- compaction: per channel; across channels each one contributes to the mean, so all are kept --------------------

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [] if self.param.mvn_param.across_channels else super().constant_channels(bottom)

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [] if self.param.mvn_param.across_channels else super().needed_channels(top, bottom_constant)

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.ones_like(bottom[0])] if self.param.mvn_param.across_channels else super().followed_channels(bottom)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param, x = self.param.mvn_param, bottom[0]
        axes = graph.integers(range(1 if param.across_channels else 2, x.num_axes))
        centred = graph.node("Sub", [inputs[0], graph.node("ReduceMean", [inputs[0], axes])])
        if not param.normalize_variance:
            return [centred]
        variance = graph.node("ReduceMean", [graph.node("Mul", [centred, centred]), axes])
        deviation = graph.node("Add", [graph.node("Sqrt", [variance]), graph.constant(param.eps)])
        return [graph.node("Div", [centred, deviation])]
