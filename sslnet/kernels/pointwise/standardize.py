"""Mean 0 and variance 1 over the middle axis of (outer, size, inner), with eps added to the variance."""

from __future__ import annotations

import math

import numpy as np

from sslnet.kernels.runtime.jit import kernel


@kernel
def standardize(r0, r1, thread, x, y, mean, factor, eps):
    """y = (x - mean) factor, factor = 1 / sqrt(variance + eps), for the outer indices [r0, r1); mean, factor (outer, inner)."""
    count, inner = x.shape[1], x.shape[2]
    if inner == 1:
        for r in range(r0, r1):
            total = 0.0
            for c in range(count):
                total += x[r, c, 0]
            m = x.dtype.type(total / count)
            square = 0.0
            for c in range(count):
                square += (x[r, c, 0] - m) * (x[r, c, 0] - m)
            k = x.dtype.type(1 / math.sqrt(square / count + eps))
            mean[r, 0], factor[r, 0] = m, k
            for c in range(count):
                y[r, c, 0] = (x[r, c, 0] - m) * k
        return
    sums = np.empty(inner)
    for r in range(r0, r1):
        m, k = mean[r], factor[r]
        sums[:] = 0
        for c in range(count):
            xc = x[r, c]
            for q in range(inner):
                sums[q] += xc[q]
        for q in range(inner):
            m[q] = sums[q] / count
        sums[:] = 0
        for c in range(count):
            xc = x[r, c]
            for q in range(inner):
                sums[q] += (xc[q] - m[q]) * (xc[q] - m[q])
        for q in range(inner):
            k[q] = 1 / math.sqrt(sums[q] / count + eps)
        for c in range(count):
            xc, yc = x[r, c], y[r, c]
            for q in range(inner):
                yc[q] = (xc[q] - m[q]) * k[q]


@kernel
def standardize_gradient(r0, r1, thread, x, dy, dx, mean, factor):
    """dx = factor (dy - mean(dy) - z mean(dy z)), z = (x - mean) factor."""
    count, inner = x.shape[1], x.shape[2]
    total, dot = np.empty(inner), np.empty(inner)
    for r in range(r0, r1):
        m, k = mean[r], factor[r]
        total[:] = 0
        dot[:] = 0
        for c in range(count):
            xc, above = x[r, c], dy[r, c]
            for q in range(inner):
                total[q] += above[q]
                dot[q] += above[q] * (xc[q] - m[q])
        for q in range(inner):
            total[q] /= count
            dot[q] *= k[q] * k[q] / count
        for c in range(count):
            xc, above, below = x[r, c], dy[r, c], dx[r, c]
            for q in range(inner):
                below[q] = k[q] * (above[q] - x.dtype.type(total[q]) - x.dtype.type(dot[q]) * (xc[q] - m[q]))
