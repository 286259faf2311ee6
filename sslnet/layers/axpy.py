"""Axpy: z = a x + y, with one a per channel of each image: scaling and shortcut of a squeeze-and-excitation block.

bottoms  a (N, C) or (N, C, 1, 1), x and y (N, C, ...)      da = sum of dz x over a channel, dx = a dz, dy = dz

Ref: Hu, Shen, Sun 2018, SENet
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.onnx import OnnxGraph


@kernel
def _forward(r0, r1, thread, a, x, y, z):
    """z = a x + y, for the rows [r0, r1) of (N * C, values)."""
    for r in range(r0, r1):
        ar, xr, yr, zr = a[r], x[r], y[r], z[r]
        for q in range(zr.size):
            zr[q] = ar * xr[q] + yr[q]


@kernel
def _scale_gradient(r0, r1, thread, x, dz, da):
    for r in range(r0, r1):
        xr, dr, total = x[r], dz[r], 0.0
        for q in range(xr.size):
            total += xr[q] * dr[q]
        da[r] = total


@kernel
def _gradient(r0, r1, thread, a, dz, dx):
    for r in range(r0, r1):
        ar, dr, below = a[r], dz[r], dx[r]
        for q in range(dr.size):
            below[q] = ar * dr[q]


@final
class Axpy(Layer):
    TYPE: ClassVar[str] = "Axpy"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = "removed from all bottoms and the top together"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (3, 3)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        a, x, y = bottom
        if x.shape != y.shape or x.num_axes < 2 or a.shape[:2] != x.shape[:2] or a.count != x.count_of(0, 2):
            raise self.shape_error(
                f"a must be one number a channel of x, and y have the shape of x: {a.shape}, {x.shape} and {y.shape}"
            )
        self.rows = (x.count_of(0, 2), x.count_of(2))
        top[0].reshape_like(x)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y, z = (blob.data.reshape(self.rows) for blob in (*bottom[1:], top[0]))
        spread(_forward, *self.rows, bottom[0].data.reshape(-1), x, y, z)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index < 2

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        a, x, y = bottom
        dz = top[0].diff.reshape(self.rows)
        if propagate_down[0]:
            spread(_scale_gradient, *self.rows, x.data.reshape(self.rows), dz, a.diff.reshape(-1))
        if propagate_down[1]:
            spread(_gradient, *self.rows, a.data.reshape(-1), dz, x.diff.reshape(self.rows))
        if propagate_down[2]:
            y.diff[...] = top[0].diff

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * top[0].count

    # -- compaction: a channel is removed from all bottoms and the top, or kept in all ---------------------------------

    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_and.reduce(bottom)]

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        return [(zero[0] | zero[1]) & constant[2]]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [top[0] for _ in bottom_constant]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(bottom)]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        a, x, y = inputs
        if bottom[0].num_axes < bottom[1].num_axes:
            a = graph.node("Unsqueeze", [a, graph.integers(range(bottom[0].num_axes, bottom[1].num_axes))])
        return [graph.node("Add", [graph.node("Mul", [a, x]), y])]
