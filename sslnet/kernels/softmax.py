"""Softmax over the middle axis of (outer, classes, inner), and its gradient."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.elementary import exp
from sslnet.kernels.jit import kernel, spread


def softmax(x: np.ndarray, y: np.ndarray) -> None:
    """y = exp(x - max) / sum of it, along axis 1.  [overwrites y]

    x, y  (outer, classes, inner)  float32 or float64, C-contiguous; may be the same array
    """
    outer, classes, inner = x.shape
    if inner == 1:
        spread(_rows, outer, 4 * classes, x.reshape(outer, classes), y.reshape(outer, classes))
    else:
        spread(_columns, outer, 4 * classes * inner, x, y)


def softmax_gradient(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = y (dy - sum of y dy over axis 1).  [overwrites dx]   dx may be dy"""
    outer, classes, inner = y.shape
    if inner == 1:
        flat = (outer, classes)
        spread(_rows_gradient, outer, classes, y.reshape(flat), dy.reshape(flat), dx.reshape(flat))
    else:
        spread(_columns_gradient, outer, classes * inner, y, dy, dx)


@kernel
def _largest(row, lanes):
    """The largest value; in lanes, since the compiler keeps a running maximum in order for the sake of NaN."""
    width = lanes.size
    lanes[:] = row[0]
    for block in range(row.size // width):
        part = row[block * width : (block + 1) * width]
        for c in range(width):
            lanes[c] = part[c] if part[c] > lanes[c] else lanes[c]
    most = row[0]
    for c in range(width):
        most = lanes[c] if lanes[c] > most else most
    for c in range(row.size // width * width, row.size):
        most = row[c] if row[c] > most else most
    return most


@kernel
def _rows(i0, i1, thread, x, y):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    lanes = np.empty(16, x.dtype)
    for i in range(i0, i1):
        row, out = x[i], y[i]
        most = _largest(row, lanes)
        for c in range(row.size):
            out[c] = exp(row[c] - most)
        total = zero
        for c in range(row.size):
            total += out[c]
        factor = one / total
        for c in range(row.size):
            out[c] *= factor


@kernel
def _columns(i0, i1, thread, x, y):
    classes, inner = x.shape[1], x.shape[2]
    most, total = np.empty(inner, x.dtype), np.empty(inner, x.dtype)
    one = x.dtype.type(1)
    for i in range(i0, i1):
        most[:] = x[i, 0]
        for c in range(1, classes):
            row = x[i, c]
            for q in range(inner):
                most[q] = row[q] if row[q] > most[q] else most[q]
        total[:] = 0
        for c in range(classes):
            row, out = x[i, c], y[i, c]
            for q in range(inner):
                e = exp(row[q] - most[q])
                out[q] = e
                total[q] += e
        for q in range(inner):
            total[q] = one / total[q]
        for c in range(classes):
            out = y[i, c]
            for q in range(inner):
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
def _columns_gradient(i0, i1, thread, y, dy, dx):
    classes, inner = y.shape[1], y.shape[2]
    dot = np.empty(inner, y.dtype)
    for i in range(i0, i1):
        dot[:] = 0
        for c in range(classes):
            value, above = y[i, c], dy[i, c]
            for q in range(inner):
                dot[q] += value[q] * above[q]
        for c in range(classes):
            value, above, below = y[i, c], dy[i, c], dx[i, c]
            for q in range(inner):
                below[q] = value[q] * (above[q] - dot[q])
