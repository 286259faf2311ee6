"""Resampling of image planes along both axes: each output pixel is a weighted sum of pixels of the input.

Resize and Pad are both of this form. A table for each axis lists the pixels and weights of each output position:
index (out, taps) int64, weight (out, taps).
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.jit import kernel


@kernel
def resample(p0, p1, thread, x, y, row, row_weight, column, column_weight):
    """y (planes, H, W) from x (planes, h, w), for the planes [p0, p1)."""
    line = np.empty(x.shape[2], x.dtype)
    for p in range(p0, p1):
        for i in range(y.shape[1]):
            source, out = x[p, row[i, 0]], y[p, i]
            f = row_weight[i, 0]
            for w in range(line.size):
                line[w] = f * source[w]
            for t in range(1, row.shape[1]):
                source, f = x[p, row[i, t]], row_weight[i, t]
                for w in range(line.size):
                    line[w] += f * source[w]
            for j in range(out.size):
                total = column_weight[j, 0] * line[column[j, 0]]
                for t in range(1, column.shape[1]):
                    total += column_weight[j, t] * line[column[j, t]]
                out[j] = total


@kernel
def resample_gradient(p0, p1, thread, dx, dy, row, row_weight, column, column_weight):
    """Adds each output pixel's diff to the pixels that it was made from, for the planes [p0, p1) of dx, which are 0."""
    line = np.empty(dx.shape[2], dx.dtype)
    for p in range(p0, p1):
        for i in range(dy.shape[1]):
            above = dy[p, i]
            line[:] = 0
            for j in range(above.size):
                for t in range(column.shape[1]):
                    line[column[j, t]] += column_weight[j, t] * above[j]
            for t in range(row.shape[1]):
                below, f = dx[p, row[i, t]], row_weight[i, t]
                for w in range(line.size):
                    below[w] += f * line[w]
