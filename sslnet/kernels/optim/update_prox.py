"""The momentum rules fused with the prox of group norms: tiles of a matrix are shrunk while they are in the cache.

    SGD       v = w - (mu * h + rate * g);  w' = prox(v);  h' = w - w'
    Nesterov  with x = w + mu * h, the point looked ahead from:  x' = prox(w - rate * g);  h' = x - x';  w' = x' - mu * h'

h so is the whole displacement, the prox's part included: at rest w is the minimiser. The prox takes
min(1, threshold / norm) off every tile of height x width.

A band is ``height`` whole rows. A first pass over its rows, in memory order, applies the step and sums the squares of
each column; a second pass shrinks. A band that fits into the cache is processed by ``bands``, a larger one, in blocks
of rows that the threads share out, by ``blocks``, ``shares`` and ``shrink_blocks``; ``fits`` chooses. Matrices are
flat. Results do not depend on the partition, and so not on the number of threads.

Ref: as ``prox``
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.optim.prox import share_of
from sslnet.kernels.optim.update import CHUNK, step
from sslnet.kernels.runtime.compiler import inlined_sums_kernel, sums_kernel

LONG = 256
"""Tiles of one row from this width on are summed one by one; narrower tiles first column by column."""
SMALL_BAND, LARGEST_BAND = 1 << 17, 1 << 19
"""Elements of a band up to which one thread processes it whole: always, and if there are at least MANY_BANDS bands."""
MANY_BANDS = 16
BLOCKS = 32
"""The number of blocks of rows of a larger band: the most threads that share it; few, so that their sums stay small."""


def fits(count: int, size: int) -> bool:
    """Whether ``count`` bands of ``size`` elements are processed by ``bands``, not by ``blocks``."""
    return size <= (LARGEST_BAND if count >= MANY_BANDS else SMALL_BAND)


@sums_kernel
def bands(
    i0, i1, part, w, grad, h, mean, memory, scale, l2, l1, rate, mu, nesterov, columns, height, width, threshold
):  # fmt: skip
    """Step and prox on the bands [i0, i1) of a flat matrix.  [overwrites w, h, mean]

    mean  as in ``update``: of w's size, or empty
    """
    kind = w.dtype.type
    scale, l2, l1, rate, mu, threshold = kind(scale), kind(l2), kind(l1), kind(rate), kind(mu), kind(threshold)
    memory, rest = kind(memory), kind(1 - memory)
    ahead = mu if nesterov else kind(0)
    line, sums = np.empty(columns, w.dtype), np.empty(columns, w.dtype)
    for band in range(i0, i1):
        start, end = band * height * columns, (band + 1) * height * columns
        if height == 1 and width >= LONG:
            for tile in range(start, end, width):
                square = kind(0)
                for a in range(tile, tile + width, CHUNK):
                    b = min(tile + width, a + CHUNK)
                    step(w[a:b], grad[a:b], h[a:b], mean[a:b], memory, rest, scale, l2, l1, rate, mu, nesterov)
                    square += _sum_of_squares(w[a:b])
                share = share_of(square, threshold)
                _shrink(w[tile : tile + width], h[tile : tile + width], share, ahead)
        else:
            line[:] = 0
            for a in range(start, end, columns):
                for first in range(0, columns, CHUNK):
                    last = min(columns, first + CHUNK)
                    i, j = a + first, a + last
                    step(w[i:j], grad[i:j], h[i:j], mean[i:j], memory, rest, scale, l2, l1, rate, mu, nesterov)
                    _add_squares(w[i:j], line[first:last])
            _to_shares(line, width, threshold, sums)
            for a in range(start, end, columns):
                _shrink_each(w[a : a + columns], h[a : a + columns], line, ahead)


@sums_kernel
def blocks(
    i0, i1, part, w, grad, h, mean, memory, scale, l2, l1, rate, mu, nesterov, columns, height, squares
):  # fmt: skip
    """The step on the blocks [i0, i1), and the sums of squares of their columns.  [overwrites w, h, mean, squares]

    squares  (bands * BLOCKS, columns)
    """
    kind = w.dtype.type
    scale, l2, l1, rate, mu = kind(scale), kind(l2), kind(l1), kind(rate), kind(mu)
    memory, rest = kind(memory), kind(1 - memory)
    for block in range(i0, i1):
        line = squares[block]
        line[:] = 0
        start, end = _rows_of(block, height)
        for a in range(start * columns, end * columns, columns):
            for first in range(0, columns, CHUNK):
                last = min(columns, first + CHUNK)
                i, j = a + first, a + last
                step(w[i:j], grad[i:j], h[i:j], mean[i:j], memory, rest, scale, l2, l1, rate, mu, nesterov)
                _add_squares(w[i:j], line[first:last])


@sums_kernel
def shares(i0, i1, part, squares, width, threshold):
    """The shares of the bands [i0, i1), for each column, in the band's first line of squares.  [overwrites squares]"""
    sums = np.empty(squares.shape[1], squares.dtype)
    for band in range(i0, i1):
        line = squares[band * BLOCKS]
        for block in range(1, BLOCKS):
            _add(squares[band * BLOCKS + block], line)
        _to_shares(line, width, squares.dtype.type(threshold), sums)


@sums_kernel
def shrink_blocks(i0, i1, part, w, h, squares, columns, height, ahead):
    """The prox on the blocks [i0, i1), and Nesterov's second step with factor ``ahead`` (0 with SGD).  [overwrites w,
    h]"""
    ahead = w.dtype.type(ahead)
    for block in range(i1 - 1, i0 - 1, -1):  # backwards: the last rows stepped are still in the cache
        line = squares[block // BLOCKS * BLOCKS]
        start, end = _rows_of(block, height)
        for a in range((end - 1) * columns, (start - 1) * columns, -columns):
            _shrink_each(w[a : a + columns], h[a : a + columns], line, ahead)


@sums_kernel
def _rows_of(block, height):
    """(first row, end row) of a block."""
    band, k = block // BLOCKS, block % BLOCKS
    return band * height + k * height // BLOCKS, band * height + (k + 1) * height // BLOCKS


@sums_kernel
def _sum_of_squares(x):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * x[i]
    return total


@sums_kernel
def _add_squares(x, line):
    """line += x^2.  [accumulates into line]"""
    for i in range(x.size):
        line[i] += x[i] * x[i]


@sums_kernel
def _add(x, line):
    """line += x.  [accumulates into line]"""
    for i in range(x.size):
        line[i] += x[i]


@sums_kernel
def _to_shares(line, width, threshold, sums):
    """Replaces the columns' sums of squares by the shares of their tiles.  [overwrites line; sums: scratch, one a
    tile]"""
    tiles = line.size // width
    if width == 1:
        sums[:tiles] = line
    elif width == 9:  # constants for the usual kernel sizes let the loops be unrolled
        _reduce(line, 9, sums)
    elif width == 25:
        _reduce(line, 25, sums)
    else:
        _reduce(line, width, sums)
    for t in range(tiles):
        sums[t] = share_of(sums[t], threshold)
    if width == 1:
        line[:] = sums[:tiles]
    elif width == 9:
        _expand(sums, 9, line)
    elif width == 25:
        _expand(sums, 25, line)
    else:
        _expand(sums, width, line)


@inlined_sums_kernel
def _reduce(line, width, sums):
    """sums[t] = sum over tile t.  [overwrites sums]"""
    for t in range(line.size // width):
        total = line[t * width]
        for j in range(1, width):
            total += line[t * width + j]
        sums[t] = total


@inlined_sums_kernel
def _expand(sums, width, line):
    """Sets each column to the value of its tile.  [overwrites line]"""
    for t in range(line.size // width):
        for j in range(width):
            line[t * width + j] = sums[t]


@sums_kernel
def _shrink(w, h, share, ahead):
    """h += share * w; w -= share * w + ahead * h.  [overwrites w, h]"""
    for i in range(w.size):
        taken = share * w[i]
        moved = h[i] + taken
        h[i] = moved
        w[i] = (w[i] - taken) - ahead * moved


@sums_kernel
def _shrink_each(w, h, shares, ahead):
    """As _shrink, with a share for each element.  [overwrites w, h]"""
    for i in range(w.size):
        taken = shares[i] * w[i]
        moved = h[i] + taken
        h[i] = moved
        w[i] = (w[i] - taken) - ahead * moved
