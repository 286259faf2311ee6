"""Reduction: reduces the axes from ``axis`` on to one number: the sum, sum of magnitudes, sum of squares, or mean.

SUM    y = coeff sum x      dx = coeff dy
ASUM   y = coeff sum |x|    dx = coeff dy sign(x)
SUMSQ  y = coeff sum x^2    dx = 2 coeff dy x
MEAN   y = coeff mean x     dx = coeff dy / count
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.channels import MOVED, ChannelKeeper
from sslnet.layers.onnx import OnnxGraph, linear

_SUM, _ASUM, _SUMSQ = pb.ReductionParameter.SUM, pb.ReductionParameter.ASUM, pb.ReductionParameter.SUMSQ


@kernel
def _forward(n0, n1, thread, x, y, operation, coeff):
    for n in range(n0, n1):
        row, total = x[n], 0.0
        if operation == _ASUM:
            for i in range(row.size):
                total += abs(row[i])
        elif operation == _SUMSQ:
            for i in range(row.size):
                total += row[i] * row[i]
        else:
            for i in range(row.size):
                total += row[i]
        y[n] = coeff * total


@kernel
def _gradient(n0, n1, thread, x, dy, dx, operation, coeff):
    zero, two = x.dtype.type(0), x.dtype.type(2)
    for n in range(n0, n1):
        row, out, d = x[n], dx[n], coeff * dy[n]
        if operation == _ASUM:
            for i in range(row.size):
                out[i] = d if row[i] > zero else (-d if row[i] < zero else zero)
        elif operation == _SUMSQ:
            for i in range(row.size):
                out[i] = two * d * row[i]
        else:
            out[:] = d


@final
class Reduction(ChannelKeeper):
    TYPE: ClassVar[str] = "Reduction"
    KIND: ClassVar[str] = "result"
    CHANNELS: ClassVar[str] = MOVED

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.reduction_param
        axis = axis_of(self, bottom[0], param.axis, "reduction_param", "axis")
        top[0].reshape(bottom[0].shape[:axis])
        self.keep_channels(top[0], axis > 1)
        self.fold = (bottom[0].count_of(0, axis), bottom[0].count_of(axis))
        mean = param.operation == pb.ReductionParameter.MEAN
        self.operation = _SUM if mean else param.operation
        self.coeff = self.dtype.type(param.coeff / max(1, self.fold[1]) if mean else param.coeff)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self.fold), top[0].data.reshape(-1)
        spread(_forward, *self.fold, x, y, self.operation, self.coeff)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dx = bottom[0].data.reshape(self.fold), bottom[0].diff.reshape(self.fold)
            spread(_gradient, *self.fold, x, top[0].diff.reshape(-1), dx, self.operation, self.coeff)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param, axes = self.param.reduction_param, bottom[0].num_axes
        first = param.axis if param.axis >= 0 else param.axis + axes
        if first == 0:
            graph.fix_batch(self)
        operators = {
            pb.ReductionParameter.SUM: "ReduceSum",
            pb.ReductionParameter.ASUM: "ReduceL1",
            pb.ReductionParameter.SUMSQ: "ReduceSumSquare",
            pb.ReductionParameter.MEAN: "ReduceMean",
        }
        over = graph.integers(range(first, axes))
        value = graph.node(operators[param.operation], [inputs[0], over], keepdims=0) if first < axes else inputs[0]
        return [linear(graph, value, param.coeff)]
