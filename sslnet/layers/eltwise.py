"""Eltwise: product, sum or maximum of two or more bottoms of one shape, value by value.

PROD   y = product of x_i                dx_i = dy times the product of the others
                                         (``stable_prod_grad: false``: dy y / x_i, fewer products, NaN where x_i is 0)
SUM    y = sum of coeff_i x_i            dx_i = coeff_i dy
MAX    y = largest x_i                   dx_i = dy where x_i was taken: on a tie the second of the first two, else the first
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.jit import kernel, spread
from sslnet.layers.base import Blobs, BoolVector, Layer


@kernel
def _sum(i0, i1, thread, a, b, y, ca, cb):
    """y = ca a + cb b; y may be a."""
    a, b, y = a[i0:i1], b[i0:i1], y[i0:i1]
    for i in range(y.size):
        y[i] = ca * a[i] + cb * b[i]


@kernel
def _add(i0, i1, thread, b, y, cb):
    """y += cb b."""
    b, y = b[i0:i1], y[i0:i1]
    for i in range(y.size):
        y[i] += cb * b[i]


@kernel
def _sum_gradient(i0, i1, thread, dy, dx, c):
    dy, dx = dy[i0:i1], dx[i0:i1]
    for i in range(dx.size):
        dx[i] = c * dy[i]


@kernel
def _product(i0, i1, thread, a, b, y):
    a, b, y = a[i0:i1], b[i0:i1], y[i0:i1]
    for i in range(y.size):
        y[i] = a[i] * b[i]


@kernel
def _multiply(i0, i1, thread, b, y):
    """y *= b."""
    b, y = b[i0:i1], y[i0:i1]
    for i in range(y.size):
        y[i] *= b[i]


@kernel
def _quotient_gradient(i0, i1, thread, x, y, dy, dx):
    x, y, dy, dx = x[i0:i1], y[i0:i1], dy[i0:i1], dx[i0:i1]
    for i in range(dx.size):
        dx[i] = y[i] / x[i] * dy[i]


@kernel
def _maximum(i0, i1, thread, a, b, y, taken):
    a, b, y, taken = a[i0:i1], b[i0:i1], y[i0:i1], taken[i0:i1]
    for i in range(y.size):
        first = a[i] > b[i]
        y[i] = a[i] if first else b[i]
        taken[i] = 0 if first else 1


@kernel
def _raise(i0, i1, thread, b, y, taken, number):
    """y = the larger of y and b, where ``number`` is that of b."""
    b, y, taken = b[i0:i1], y[i0:i1], taken[i0:i1]
    for i in range(y.size):
        larger = b[i] > y[i]
        y[i] = b[i] if larger else y[i]
        taken[i] = number if larger else taken[i]


@kernel
def _maximum_gradient(i0, i1, thread, taken, dy, dx, number):
    zero = dy.dtype.type(0)
    taken, dy, dx = taken[i0:i1], dy[i0:i1], dx[i0:i1]
    for i in range(dx.size):
        dx[i] = dy[i] if taken[i] == number else zero


@final
class Eltwise(Layer):
    TYPE: ClassVar[str] = "Eltwise"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, None)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.eltwise_param
        self.operation = param.operation
        if param.coeff and self.operation != pb.EltwiseParameter.SUM:
            raise self.error("coeff is for operation: SUM alone", "eltwise_param", "coeff", 0)
        if len(param.coeff) not in (0, len(bottom)):
            raise self.error(f"{len(param.coeff)} coeff for {len(bottom)} bottoms", "eltwise_param", "coeff", 0)
        self.coeffs = [self.dtype.type(c) for c in (param.coeff or [1] * len(bottom))]
        self._taken = np.empty(0, np.int32)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob in bottom[1:]:
            if blob.shape != bottom[0].shape:
                raise self.shape_error(
                    f'the bottoms must have one shape: "{bottom[0].name}" {bottom[0].shape}, "{blob.name}" {blob.shape}'
                )
        top[0].reshape_like(bottom[0])
        if self.operation == pb.EltwiseParameter.MAX and self._taken.size != top[0].count:
            self._taken = np.empty(top[0].count, np.int32)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        first, second, *rest = (blob.data.reshape(-1) for blob in bottom)
        y, n = top[0].data.reshape(-1), top[0].count
        if self.operation == pb.EltwiseParameter.SUM:
            spread(_sum, n, 1, first, second, y, *self.coeffs[:2])
            for x, coeff in zip(rest, self.coeffs[2:]):
                spread(_add, n, 1, x, y, coeff)
        elif self.operation == pb.EltwiseParameter.PROD:
            spread(_product, n, 1, first, second, y)
            for x in rest:
                spread(_multiply, n, 1, x, y)
        else:
            spread(_maximum, n, 1, first, second, y, self._taken)
            for number, x in enumerate(rest, 2):
                spread(_raise, n, 1, x, y, self._taken, number)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return bool(self.operation == pb.EltwiseParameter.PROD)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        dy, n = top[0].diff.reshape(-1), top[0].count
        for number, (blob, wanted) in enumerate(zip(bottom, propagate_down)):
            if not wanted:
                continue
            dx = blob.diff.reshape(-1)
            if self.operation == pb.EltwiseParameter.SUM:
                spread(_sum_gradient, n, 1, dy, dx, self.coeffs[number])
            elif self.operation == pb.EltwiseParameter.MAX:
                spread(_maximum_gradient, n, 1, self._taken, dy, dx, number)
            elif self.param.eltwise_param.stable_prod_grad:
                first, *others = (b.data.reshape(-1) for i, b in enumerate(bottom) if i != number)
                spread(_product, n, 1, first, dy, dx)
                for x in others:
                    spread(_multiply, n, 1, x, dx)
            else:
                spread(_quotient_gradient, n, 1, blob.data.reshape(-1), top[0].data.reshape(-1), dy, dx)

    def reads_top(self, in_place: bool) -> bool:
        param = self.param.eltwise_param
        return bool(self.operation == pb.EltwiseParameter.PROD and not param.stable_prod_grad)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        each = 2 if len(self.param.eltwise_param.coeff) else 1
        return each * (len(bottom) - 1) * top[0].count

    # -- compaction: a channel goes from all bottoms and the top, or stays in all -----------------------------------------

    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_and.reduce(bottom)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [top[0] for _ in bottom_constant]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(bottom)]
