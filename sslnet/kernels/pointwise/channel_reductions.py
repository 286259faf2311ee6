"""Sums over all axes but the channels of (outer, channels, inner) arrays; ranges are over channels.

Partial sums have the arrays' precision within a row of ``inner`` values (one per vector lane), and float64 over the
rows. Results do not depend on the number of threads.
"""

from __future__ import annotations

from sslnet.kernels.runtime.jit import kernel


@kernel
def channel_sums(c0, c1, thread, g, x, shift, total, dot):
    """total = sum of g, dot = sum of g (x - shift), for each channel.  [overwrites total and dot]

    g, x             (outer, channels, inner)  float32 or float64
    shift            (channels)  of the same type
    total, dot       (channels)  float64
    """
    outer, inner = x.shape[0], x.shape[2]
    total[c0:c1] = 0
    dot[c0:c1] = 0
    if inner == 1:
        # Rows of one value: the channels are what lies side by side.
        for n in range(outer):
            gn, xn, s, t, d = g[n, c0:c1, 0], x[n, c0:c1, 0], shift[c0:c1], total[c0:c1], dot[c0:c1]
            for c in range(t.size):
                t[c] += gn[c]
                d[c] += gn[c] * (xn[c] - s[c])
        return
    for c in range(c0, c1):
        s, t, d = shift[c], 0.0, 0.0
        for n in range(outer):
            gn, xn = g[n, c], x[n, c]
            row_total = row_dot = x.dtype.type(0)
            for q in range(inner):
                row_total += gn[q]
                row_dot += gn[q] * (xn[q] - s)
            t += row_total
            d += row_dot
        total[c], dot[c] = t, d


@kernel
def channel_moments(c0, c1, thread, x, mean, variance):
    """Mean and (biased) variance of each channel.  [overwrites mean and variance]

    The mean of the channel's first row is subtracted before summing, so that a large mean loses no digits.

    x                (outer, channels, inner)  float32 or float64
    mean, variance   (channels)  float64
    """
    outer, inner = x.shape[0], x.shape[2]
    count = outer * inner
    if inner == 1:
        _moments_of_rows(x[:, :, 0], mean, variance, c0, c1)
        return
    for c in range(c0, c1):
        first = x[0, c]
        row = x.dtype.type(0)
        for q in range(inner):
            row += first[q]
        shift = x.dtype.type(row / inner)
        total, square = 0.0, 0.0
        for n in range(outer):
            xn = x[n, c]
            row_total = row_square = x.dtype.type(0)
            for q in range(inner):
                v = xn[q] - shift
                row_total += v
                row_square += v * v
            total += row_total
            square += row_square
        off = total / count
        mean[c] = shift + off
        variance[c] = max(square / count - off * off, 0.0)


@kernel
def _moments_of_rows(x, mean, variance, c0, c1):
    """As channel_moments, for x (outer, channels), in two passes."""
    outer = x.shape[0]
    m, v = mean[c0:c1], variance[c0:c1]
    m[:] = 0
    v[:] = 0
    for n in range(outer):
        row = x[n, c0:c1]
        for c in range(m.size):
            m[c] += row[c]
    for c in range(m.size):
        m[c] /= outer
    for n in range(outer):
        row = x[n, c0:c1]
        for c in range(m.size):
            off = row[c] - m[c]
            v[c] += off * off
    for c in range(v.size):
        v[c] /= outer
