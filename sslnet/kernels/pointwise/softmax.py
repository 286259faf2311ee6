"""Softmax over the middle axis of (outer, classes, inner), and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.simd.math import exp

_SIGN, _REST, _LEAST = np.int32(31), np.int32(2**31 - 1), np.int32(-(2**31))
_BLOCK = 256
"""Columns of a block that is processed over all classes while it is in the cache."""


def softmax(x: np.ndarray, y: np.ndarray) -> None:
    """y = exp(x - max) / sum of it, along axis 1.  [overwrites y]

    x, y  (outer, classes, inner)  float32 or float64, C-contiguous; may be the same array
    """
    outer, classes, inner = x.shape
    if not classes:
        return
    if inner == 1:
        spread(_rows, outer, 4 * classes, x.reshape(outer, classes), y.reshape(outer, classes))
    else:
        spread(_columns, outer * _blocks(inner), 4 * classes * min(inner, _BLOCK), x, y)


def softmax_gradient(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = y (dy - sum of y dy over axis 1).  [overwrites dx]   dx may be dy"""
    outer, classes, inner = y.shape
    if inner == 1:
        flat = (outer, classes)
        spread(_rows_gradient, outer, classes, y.reshape(flat), dy.reshape(flat), dx.reshape(flat))
    else:
        spread(_columns_gradient, outer * _blocks(inner), classes * min(inner, _BLOCK), y, dy, dx)


def _blocks(inner: int) -> int:
    return -(-inner // _BLOCK)


def _largest(row: Any) -> Any:
    """The largest value of a row; NaN may be ignored, because its own exponential is NaN in any case."""
    raise NotImplementedError("to be called from Numba functions")


@overload(_largest)
def _largest_of(row):
    if row.dtype != types.float32:
        return lambda row: np.max(row)

    def single(row):
        # A running maximum of floats is not vectorised, because of NaN. Integers in the same order as the floats are:
        # the bits, with all but the sign inverted for negative numbers.
        most = _LEAST
        for c in range(row.size):
            bits = np.float32(row[c]).view(np.int32)
            most = max(most, np.int32(bits ^ ((bits >> _SIGN) & _REST)))
        return np.int32(most ^ ((most >> _SIGN) & _REST)).view(np.float32)

    return single


@kernel
def _rows(i0, i1, thread, x, y):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(i0, i1):
        row, out = x[i], y[i]
        most, total = _largest(row), zero
        for c in range(row.size):
            e = exp(row[c] - most)
            out[c] = e
            total += e
        factor = one / total
        for c in range(row.size):
            out[c] *= factor


@kernel
def _columns(b0, b1, thread, x, y):
    """Softmax of the blocks [b0, b1) of columns, image after image."""
    classes, inner = x.shape[1], x.shape[2]
    blocks, one = -(-inner // _BLOCK), x.dtype.type(1)
    largest, sums = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype)
    for b in range(b0, b1):
        i, p = b // blocks, b % blocks * _BLOCK
        end = min(p + _BLOCK, inner)
        most, total = largest[: end - p], sums[: end - p]
        most[:] = x[i, 0, p:end]
        for c in range(1, classes):
            row = x[i, c, p:end]
            for q in range(row.size):
                most[q] = row[q] if row[q] > most[q] else most[q]
        total[:] = 0
        for c in range(classes):
            row, out = x[i, c, p:end], y[i, c, p:end]
            for q in range(row.size):
                e = exp(row[q] - most[q])
                out[q] = e
                total[q] += e
        for q in range(total.size):
            total[q] = one / total[q]
        for c in range(classes):
            out = y[i, c, p:end]
            for q in range(out.size):
                out[q] *= total[q]


@kernel
def _rows_gradient(i0, i1, thread, y, dy, dx):
    for i in range(i0, i1):
        value, above, below = y[i], dy[i], dx[i]
        dot = y.dtype.type(0)
        for c in range(value.size):
            dot += value[c] * above[c]
        for c in range(value.size):
            below[c] = value[c] * (above[c] - dot)


@kernel
def _columns_gradient(b0, b1, thread, y, dy, dx):
    """The gradient of the blocks [b0, b1) of columns, image after image."""
    classes, inner = y.shape[1], y.shape[2]
    blocks, sums = -(-inner // _BLOCK), np.empty(_BLOCK, y.dtype)
    for b in range(b0, b1):
        i, p = b // blocks, b % blocks * _BLOCK
        end = min(p + _BLOCK, inner)
        dot = sums[: end - p]
        dot[:] = 0
        for c in range(classes):
            value, above = y[i, c, p:end], dy[i, c, p:end]
            for q in range(value.size):
                dot[q] += value[q] * above[q]
        for c in range(classes):
            value, above, below = y[i, c, p:end], dy[i, c, p:end], dx[i, c, p:end]
            for q in range(value.size):
                below[q] = value[q] * (above[q] - dot[q])
