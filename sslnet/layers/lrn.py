"""LRN: local response normalisation, over neighbouring channels or over neighbouring pixels.

ACROSS_CHANNELS: s = k + alpha / n * sum of x^2 over the n channels around; WITHIN_CHANNEL: s = 1 + alpha / n^2 * sum of
x^2 over the n x n pixels around (k is not used; pixels outside the image count as zero). Both: y = x s^-beta,
dx = dy s^-beta - 2 alpha beta / (n or n^2) * x * sum over the same neighbours of dy x s^(-beta - 1).

bottom, top  (N, C, H, W); n = local_size, odd

Ref: Krizhevsky, Sutskever, Hinton 2012, section 3.3
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.simd.math import power
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph

_BLOCK = 128
"""Pixels per block of the loop over all channels, so that the block remains in cache."""


@kernel
def _power(s, out, beta):
    """out = s^-beta; for the usual beta, 0.75, by two square roots."""
    if beta == 0.75:
        one = s.dtype.type(1)
        for q in range(s.size):
            root = math.sqrt(s[q])
            out[q] = one / (root * math.sqrt(root))
    else:
        for q in range(s.size):
            out[q] = power(s[q], -beta)


@kernel
def _across_forward(i0, i1, thread, x, y, scale, half, alpha, beta, k):
    """Forward pass across channels for the images [i0, i1) of (N, C, pixels), with a sliding sum over channels."""
    channels, pixels = x.shape[1], x.shape[2]
    sums, factor = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype)
    for i in range(i0, i1):
        for p in range(0, pixels, _BLOCK):
            end = min(p + _BLOCK, pixels)
            total, power = sums[: end - p], factor[: end - p]
            total[:] = 0
            for c in range(-half, channels):
                if c + half < channels:
                    new = x[i, c + half, p:end]
                    for q in range(new.size):
                        total[q] += new[q] * new[q]
                if c - half - 1 >= 0:
                    old = x[i, c - half - 1, p:end]
                    for q in range(old.size):
                        total[q] -= old[q] * old[q]
                if c < 0:
                    continue
                s, source, out = scale[i, c, p:end], x[i, c, p:end], y[i, c, p:end]
                for q in range(s.size):
                    s[q] = k + alpha * total[q]
                _power(s, power, beta)
                for q in range(s.size):
                    out[q] = source[q] * power[q]


@kernel
def _across_backward(i0, i1, thread, x, scale, dy, dx, half, alpha, beta):
    """Backward pass across channels for the images [i0, i1) of (N, C, pixels)."""
    channels, pixels = x.shape[1], x.shape[2]
    sums, factor = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype)
    ratios = np.empty((channels, _BLOCK), x.dtype)
    slope = x.dtype.type(2) * alpha * beta
    for i in range(i0, i1):
        for p in range(0, pixels, _BLOCK):
            end = min(p + _BLOCK, pixels)
            total, power = sums[: end - p], factor[: end - p]
            for c in range(channels):
                s, source, above, below = scale[i, c, p:end], x[i, c, p:end], dy[i, c, p:end], dx[i, c, p:end]
                ratio = ratios[c, : end - p]
                _power(s, power, beta)
                for q in range(s.size):
                    g = above[q] * power[q]
                    ratio[q] = g * source[q] / s[q]
                    below[q] = g
            total[:] = 0
            for c in range(-half, channels):
                if c + half < channels:
                    new = ratios[c + half, : end - p]
                    for q in range(new.size):
                        total[q] += new[q]
                if c - half - 1 >= 0:
                    old = ratios[c - half - 1, : end - p]
                    for q in range(old.size):
                        total[q] -= old[q]
                if c < 0:
                    continue
                source, below = x[i, c, p:end], dx[i, c, p:end]
                for q in range(source.size):
                    below[q] -= slope * source[q] * total[q]


@kernel
def _box(plane, out, line, half):
    """out = sum of the plane over the (2 half + 1)^2 pixels around each, zeros outside.

    line  workspace of width + 2 half zeros; its ends remain zero
    """
    height, width = plane.shape
    inside = line[half : half + width]
    for h in range(height):
        inside[:] = 0
        for r in range(max(h - half, 0), min(h + half + 1, height)):
            row = plane[r]
            for q in range(width):
                inside[q] += row[q]
        target = out[h]
        target[:] = 0
        for j in range(2 * half + 1):
            shifted = line[j : j + width]
            for q in range(width):
                target[q] += shifted[q]


@kernel
def _within_forward(i0, i1, thread, x, y, scale, half, alpha, beta):
    """Forward pass within channels for the planes [i0, i1) of (planes, H, W)."""
    height, width = x.shape[1], x.shape[2]
    squares, line = np.empty((height, width), x.dtype), np.zeros(width + 2 * half, x.dtype)
    power = squares.reshape(-1)
    one = x.dtype.type(1)
    for i in range(i0, i1):
        source, out, s = x[i].reshape(-1), y[i].reshape(-1), scale[i].reshape(-1)
        for q in range(source.size):
            power[q] = source[q] * source[q]
        _box(squares, scale[i], line, half)
        for q in range(s.size):
            s[q] = one + alpha * s[q]
        _power(s, power, beta)
        for q in range(s.size):
            out[q] = source[q] * power[q]


@kernel
def _within_backward(i0, i1, thread, x, scale, dy, dx, half, alpha, beta):
    """Backward pass within channels for the planes [i0, i1) of (planes, H, W)."""
    height, width = x.shape[1], x.shape[2]
    ratios, sums = np.empty((height, width), x.dtype), np.empty((height, width), x.dtype)
    line, slope = np.zeros(width + 2 * half, x.dtype), x.dtype.type(2) * alpha * beta
    ratio, total = ratios.reshape(-1), sums.reshape(-1)
    for i in range(i0, i1):
        source, s, above, below = x[i].reshape(-1), scale[i].reshape(-1), dy[i].reshape(-1), dx[i].reshape(-1)
        _power(s, below, beta)
        for q in range(s.size):
            g = above[q] * below[q]
            ratio[q] = g * source[q] / s[q]
            below[q] = g
        _box(ratios, sums, line, half)
        for q in range(s.size):
            below[q] -= slope * source[q] * total[q]


@final
class LRN(ChannelWise):
    TYPE: ClassVar[str] = "LRN"
    KIND: ClassVar[str] = "norm"
    CHANNELS: ClassVar[str] = "within channels: removed in bottom and top together; across channels: all are kept"

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"size {param.lrn_param.local_size}"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.lrn_param
        if param.local_size % 2 == 0:
            raise self.error(f"local_size must be odd, not {param.local_size}", "lrn_param", "local_size", value=True)
        self.across = param.norm_region == pb.LRNParameter.ACROSS_CHANNELS
        neighbours = param.local_size if self.across else param.local_size**2
        self.alpha = self.dtype.type(param.alpha / neighbours)
        self.beta = self.dtype.type(param.beta)
        self.scale = Blob(name=f"{self.name} scale", dtype=self.dtype)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if x.num_axes != 4:
            raise self.shape_error(f'LRN needs a bottom of 4 axes (N, C, H, W): "{x.name}" has shape {x.shape}')
        top[0].reshape_like(x)
        self.scale.reshape_like(x)
        self.fold = (x.num, x.channels, x.count_of(2)) if self.across else (x.count_of(0, 2), x.height, x.width)
        farthest = x.channels if self.across else max(x.height, x.width)
        self.half = min(self.param.lrn_param.local_size // 2, farthest)  # beyond it there are only zeros

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y, scale = (a.reshape(self.fold) for a in (bottom[0].data, top[0].data, self.scale.data))
        work = 4 * self.fold[1] * self.fold[2]
        if self.across:
            k = self.dtype.type(self.param.lrn_param.k)
            spread(_across_forward, len(x), work, x, y, scale, self.half, self.alpha, self.beta, k)
        else:
            spread(_within_forward, len(x), work, x, y, scale, self.half, self.alpha, self.beta)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        x, scale, dy, dx = (
            a.reshape(self.fold) for a in (bottom[0].data, self.scale.data, top[0].diff, bottom[0].diff)
        )
        work = 4 * self.fold[1] * self.fold[2]
        run = _across_backward if self.across else _within_backward
        spread(run, len(x), work, x, scale, dy, dx, self.half, self.alpha, self.beta)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if self.across and self.param.lrn_param.k < 1:
            return super().bounds(bottom, top)
        return [bottom[0].with_zero().rounded(self.dtype, 64)]

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        """Per value: a multiply-add per neighbour, one for the scale, and one operation each for power and product."""
        n: int = self.param.lrn_param.local_size
        return bottom[0].count * (2 * (n if self.across else n * n) + 4)

    # -- compaction: across channels each channel depends on its neighbours, so all are kept -------------------------

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [] if self.across else super().constant_channels(bottom)

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [] if self.across else super().needed_channels(top, bottom_constant)

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.ones_like(bottom[0])] if self.across else super().followed_channels(bottom)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param = self.param.lrn_param
        n = param.local_size
        if self.across:
            return [graph.node("LRN", inputs, size=n, alpha=param.alpha, beta=param.beta, bias=param.k)]
        squares = graph.node("Mul", [inputs[0], inputs[0]])
        pads: dict[str, Any] = {"kernel_shape": [n, n], "strides": [1, 1], "pads": [n // 2] * 4, "count_include_pad": 1}
        mean = graph.node("AveragePool", [squares], **pads)
        s = graph.node("Add", [graph.node("Mul", [mean, graph.constant(param.alpha)]), graph.constant(1)])
        return [graph.node("Div", [inputs[0], graph.node("Pow", [s, graph.constant(param.beta)])])]
