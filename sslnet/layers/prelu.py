"""PReLU: y = x if x > 0, else slope x, with a learned slope per channel (axis 1) or one for all; in place or not.

dx = dy where x > 0, dy slope elsewhere; dslope = sum of dy x where x <= 0.

Ref: He et al. 2015, "Delving deep into rectifiers"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.runtime.memory import aligned_empty
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox, bent_at_zero
from sslnet.layers.channels import OnePerChannel
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.elementwise import copy
from sslnet.layers.onnx import OnnxGraph

# In place, y or dx is None: see layers/elementwise.py. With one value per channel (``values`` is 1) the innermost loop
# runs over the slopes, which are contiguous.


@kernel
def _forward(n0, n1, thread, x, y, slopes):
    """Computes y for the images [n0, n1) of (N, C, values)."""
    zero = x.dtype.type(0)
    y = x if y is None else y
    for n in range(n0, n1):
        if x.shape[2] == 1:
            xn, yn = x[n].reshape(-1), y[n].reshape(-1)
            for c in range(slopes.size):
                v = xn[c]
                yn[c] = v if v > zero else slopes[c] * v
            continue
        for c in range(slopes.size):
            xc, yc, slope = x[n, c], y[n, c], slopes[c]
            for q in range(xc.size):
                v = xc[q]
                yc[q] = v if v > zero else slope * v


@kernel
def _gradient(n0, n1, thread, x, dy, dx, slopes):
    """Computes dx for the images [n0, n1) of (N, C, values)."""
    zero = x.dtype.type(0)
    dx = dy if dx is None else dx
    for n in range(n0, n1):
        if x.shape[2] == 1:
            xn, above, below = x[n].reshape(-1), dy[n].reshape(-1), dx[n].reshape(-1)
            for c in range(slopes.size):
                g = above[c]
                below[c] = g if xn[c] > zero else slopes[c] * g
            continue
        for c in range(slopes.size):
            xc, above, below, slope = x[n, c], dy[n, c], dx[n, c], slopes[c]
            for q in range(xc.size):
                g = above[q]
                below[q] = g if xc[q] > zero else slope * g


@kernel
def _slope_gradient(c0, c1, thread, x, dy, total):
    """total = sum of dy x where x <= 0, for the channels [c0, c1) of (N, C, values)."""
    zero = x.dtype.type(0)
    total[c0:c1] = 0
    for n in range(x.shape[0]):
        if x.shape[2] == 1:
            xn, dn, t = x[n, c0:c1, 0], dy[n, c0:c1, 0], total[c0:c1]
            for c in range(t.size):
                t[c] += dn[c] * xn[c] if xn[c] <= zero else zero
            continue
        for c in range(c0, c1):
            xc, dc, row = x[n, c], dy[n, c], zero
            for q in range(xc.size):
                row += dc[q] * xc[q] if xc[q] <= zero else zero
            total[c] += row


@final
class PReLU(OnePerChannel, ChannelWise):
    TYPE: ClassVar[str] = "PReLU"
    KIND: ClassVar[str] = "activation"
    IN_PLACE: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.prelu_param
        if bottom[0].num_axes < 2:
            raise self.shape_error(f'PReLU needs a channel axis: "{bottom[0].name}" has shape {bottom[0].shape}')
        self.shared = param.channel_shared
        self.new_param(() if self.shared else (bottom[0].shape[1],), "prelu_param", "filler", default=0.25)
        self._input = np.empty(0, self.dtype)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, slopes = bottom[0], self.blobs[0]
        if not self.shared and x.shape[1:2] != slopes.shape:
            raise self.shape_error(f'the slopes are of {slopes.count} channels: "{x.name}" has shape {x.shape}')
        top[0].reshape_like(x)
        self.fold = (x.shape[0], x.shape[1], x.count_of(2))
        self._total = np.zeros(x.shape[1])
        if top[0] is x and self._input.size != x.count:
            self._input = aligned_empty(x.count, self.dtype)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self.fold), top[0].data.reshape(self.fold)
        in_place = top[0] is bottom[0]
        if in_place:
            spread(copy, x.size, 1, x.reshape(-1), self._input)
        spread(_forward, len(x), x[:1].size, x, None if in_place else y, self.by_channel())

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return not in_place

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        in_place = top[0] is bottom[0]
        x = (self._input if in_place else bottom[0].data).reshape(self.fold)
        dy, dx = top[0].diff.reshape(self.fold), bottom[0].diff.reshape(self.fold)
        if self.param_propagate_down[0]:
            spread(_slope_gradient, self.fold[1], self.fold[0] * self.fold[2], x, dy, self._total)
            slopes = self.blobs[0].diff
            slopes += self._total.sum() if self.shared else self._total
        if propagate_down[0]:
            spread(_gradient, len(x), x[:1].size, x, dy, None if in_place else dx, self.by_channel())

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        slopes = self.by_channel()
        return [bent_at_zero(bottom[0], self.dtype, lambda x: np.where(x > 0, x, slopes * x))]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        slopes = self.blobs[0].data.reshape(-1, *(1,) * (bottom[0].num_axes - 2))
        return [graph.node("PRelu", [inputs[0], graph.param(self, 0, slopes, "spread")])]
