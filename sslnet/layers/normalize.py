"""Normalize: divides each image (``across_spatial``) or each pixel's channels by the L2 norm, times a learned scale.

    y = s x / r,   r = sqrt(sum of x^2 + eps) over (C, H, W) or over C,   s one number per channel, or one for all
    dx = (g - x sum(g x) / r^2) / r with g = s dy, the sum as above; ds = sum of dy x / r

Ref: Liu, Rabinovich, Berg 2015, ParseNet; Liu et al. 2016, SSD
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.channels import OnePerChannel
from sslnet.layers.onnx import OnnxGraph


@kernel
def _whole_sum(a, b):
    """The sum of a b; short blocks in the arrays' precision, their sums in float64."""
    total = 0.0
    for first in range(0, a.size, 4096):
        left, right, part = a[first : first + 4096], b[first : first + 4096], a.dtype.type(0)
        for q in range(left.size):
            part += left[q] * right[q]
        total += part
    return total


@kernel
def _pixel_sums(a, b, sums):
    """sums = sum of a b over the channels of one image (C, pixels), for each pixel."""
    sums[:] = 0
    for c in range(a.shape[0]):
        ac, bc = a[c], b[c]
        for q in range(sums.size):
            sums[q] += ac[q] * bc[q]


@kernel
def _forward(n0, n1, thread, x, y, inverse, scale, across, eps):
    """y = scale x / r and inverse (N, pixels) = 1 / r, for the images [n0, n1); scale has one number per channel."""
    one = x.dtype.type(1)
    for n in range(n0, n1):
        inv = inverse[n]
        if across:
            inv[:] = _whole_sum(x[n].reshape(-1), x[n].reshape(-1))
        else:
            _pixel_sums(x[n], x[n], inv)
        for q in range(inv.size):
            inv[q] = one / np.sqrt(inv[q] + eps)
        for c in range(x.shape[1]):
            xc, yc, s = x[n, c], y[n, c], scale[c]
            for q in range(inv.size):
                yc[q] = s * xc[q] * inv[q]


@kernel
def _gradient(n0, n1, thread, x, dy, dx, inverse, scale, across):
    for n in range(n0, n1):
        inv, below = inverse[n], dx[n]
        for c in range(x.shape[1]):
            bc, dc, s = below[c], dy[n, c], scale[c]
            for q in range(inv.size):
                bc[q] = s * dc[q]
        dot = np.empty(inv.size, x.dtype)
        if across:
            dot[:] = _whole_sum(below.reshape(-1), x[n].reshape(-1))
        else:
            _pixel_sums(below, x[n], dot)
        for q in range(inv.size):
            dot[q] *= inv[q] * inv[q]
        for c in range(x.shape[1]):
            bc, xc = below[c], x[n, c]
            for q in range(inv.size):
                bc[q] = (bc[q] - xc[q] * dot[q]) * inv[q]


@kernel
def _scale_gradient(c0, c1, thread, x, dy, inverse, total):
    """total = sum of dy x / r, for the channels [c0, c1)."""
    for c in range(c0, c1):
        t = 0.0
        for n in range(x.shape[0]):
            xc, dc, inv, row = x[n, c], dy[n, c], inverse[n], x.dtype.type(0)
            for q in range(inv.size):
                row += dc[q] * xc[q] * inv[q]
            t += row
        total[c] = t


@final
class Normalize(OnePerChannel):
    TYPE: ClassVar[str] = "Normalize"
    KIND: ClassVar[str] = "norm"
    CHANNELS: ClassVar[str] = "channels that are always zero are removed"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param: Any = self.param.norm_param
        if bottom[0].num_axes < 2:
            raise self.shape_error(f'Normalize needs a channel axis: "{bottom[0].name}" has shape {bottom[0].shape}')
        self.shared = param.channel_shared
        self.new_param(() if self.shared else (bottom[0].shape[1],), "norm_param", "scale_filler", default=1)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if not self.shared and x.shape[1:2] != self.blobs[0].shape:
            raise self.shape_error(f'the scales are of {self.blobs[0].count} channels: "{x.name}" has shape {x.shape}')
        top[0].reshape_like(x)
        self.fold = (x.shape[0], x.shape[1], x.count_of(2))
        self._inverse = np.zeros((self.fold[0], self.fold[2]), self.dtype)
        self._total = np.zeros(self.fold[1])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, cost = self.param.norm_param, self.fold[1] * self.fold[2]
        x, y, eps = bottom[0].data.reshape(self.fold), top[0].data.reshape(self.fold), self.dtype.type(param.eps)
        spread(_forward, self.fold[0], cost, x, y, self._inverse, self.by_channel(), param.across_spatial, eps)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        x, dy = bottom[0].data.reshape(self.fold), top[0].diff.reshape(self.fold)
        if self.param_propagate_down[0]:
            spread(_scale_gradient, self.fold[1], self.fold[0] * self.fold[2], x, dy, self._inverse, self._total)
            scale = self.blobs[0].diff
            scale += self._total.sum() if self.shared else self._total
        if propagate_down[0]:
            dx, across = bottom[0].diff.reshape(self.fold), self.param.norm_param.across_spatial
            spread(_gradient, self.fold[0], x[0].size, x, dy, dx, self._inverse, self.by_channel(), across)

    # -- compaction: every channel that is not zero contributes to the norm and is kept --------------------------------

    SHRINKS: ClassVar[bool] = True
    IGNORES_ZEROS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [self.by_channel() == 0]

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        return [zero[0]]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [top[0] | ~bottom_constant[0]]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0]]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param, x = self.param.norm_param, bottom[0]
        axes = graph.integers(range(1, x.num_axes) if param.across_spatial else [1])
        squares = graph.node("Add", [graph.node("ReduceSumSquare", [inputs[0], axes]), graph.constant(param.eps)])
        scales = self.blobs[0].data.reshape(-1, *(1,) * (x.num_axes - 2))
        value = graph.node("Div", [inputs[0], graph.node("Sqrt", [squares])])
        return [graph.node("Mul", [value, graph.param(self, 0, scales, "spread")])]
