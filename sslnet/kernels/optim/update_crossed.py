"""The momentum rules fused with the prox of two overlapping group norms: of the rows of a matrix, and of its columns.

    SGD       v = w - (mu * h + rate * g);  w' = prox(v);  h' = w - w'
    Nesterov  as in ``update_prox``

The prox is found by block-coordinate ascent on its dual, rows and columns in turn. Only the dual of the columns is
kept; c stands for the step size times it. With c of the last sweep, a sweep is

    R_i = share of row i of v - c           q = v - R_i * (v - c)
    C_j = share of column j of q            c' = C_j * q

and w' = (1 - C_j) * q after the last one, where a share is min(1, threshold / norm). So a sweep is described by one
number a row and one a column, and c by those of all sweeps and the dual it began with: a sweep reads v and that dual,
and writes nothing. Sweeps end when c changes so little, in every row and every column, that the next changes no dual by
more than the tolerance; the last pass writes weights, momentum and dual.

Tiles of the columns may be several columns wide. Matrices are flat. The rows are processed in BLOCKS blocks, whose sums
are added in order, so results do not depend on the number of threads.

Ref: as ``prox``
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.optim.prox import share_of
from sslnet.kernels.optim.update import CHUNK, step
from sslnet.kernels.optim.update_prox import _add, _add_squares, _to_shares
from sslnet.kernels.runtime.compiler import sums_kernel

BLOCKS = 32
"""The number of blocks of rows: the most threads that share a matrix."""
MOST_SWEEPS = 8
"""The number of sweeps after which the dual is stored, because following them from the first one would cost too much."""


@sums_kernel
def momentum_step(
    i0, i1, part, w, grad, h, mean, memory, scale, l2, l1, rate, mu, nesterov, columns, rows
):  # fmt: skip
    """The step of the rows of the blocks [i0, i1), without prox and look ahead.  [overwrites w, h, mean]"""
    kind = w.dtype.type
    scale, l2, l1, rate, mu = kind(scale), kind(l2), kind(l1), kind(rate), kind(mu)
    memory, rest = kind(memory), kind(1 - memory)
    for a in range(i0 * rows // BLOCKS * columns, i1 * rows // BLOCKS * columns, CHUNK):
        b = min(i1 * rows // BLOCKS * columns, a + CHUNK)
        step(w[a:b], grad[a:b], h[a:b], mean[a:b], memory, rest, scale, l2, l1, rate, mu, nesterov)


@sums_kernel
def sweep(i0, i1, part, v, dual, size, threshold, row_shares, column_shares, done, squares, changes, row_changes, columns):
    """A sweep's row shares, and its sums of squares of the columns, of the blocks [i0, i1), after ``done`` sweeps.

    size                the step size
    threshold           that of the rows
    row_shares          (sweeps, rows)     [overwrites row ``done``]
    column_shares       (sweeps, columns)
    squares, changes    (BLOCKS, columns)  sums of squares of q, and of the last change of c  [overwrites]
    row_changes         (rows)             sums of squares of the last change of c            [overwrites]
    """
    kind = v.dtype.type
    size, threshold = kind(size), kind(threshold)
    rows = row_shares.shape[1]
    now, before = np.empty(columns, v.dtype), np.empty(columns, v.dtype)
    for block in range(i0, i1):
        line, moves = squares[block], changes[block]
        line[:] = 0
        moves[:] = 0
        for i in range(block * rows // BLOCKS, (block + 1) * rows // BLOCKS):
            own = v[i * columns : (i + 1) * columns]
            _follow(own, dual[i * columns : (i + 1) * columns], size, row_shares[:, i], column_shares, done, now, before)
            if done:
                row_changes[i] = _add_changes(now, before, moves)
            share = share_of(_square_of_difference(own, now), threshold)
            row_shares[done, i] = share
            _add_squares_of_rest(own, now, share, line)


@sums_kernel
def column_shares(i0, i1, part, squares, width, threshold, out):
    """The shares of the columns from the sums of all blocks.  [overwrites out (columns), squares]"""
    line = squares[0]
    for block in range(1, BLOCKS):
        _add(squares[block], line)
    _to_shares(line, width, squares.dtype.type(threshold), np.empty(line.size, squares.dtype))
    out[:] = line


@sums_kernel
def finish(i0, i1, part, v, h, dual, size, row_shares, column_shares, done, columns, ahead):
    """The prox after ``done`` sweeps, on the blocks [i0, i1), and Nesterov's second step with factor ``ahead`` (0 with
    SGD).  [overwrites v, h, dual]"""
    kind = v.dtype.type
    size, ahead, inverse = kind(size), kind(ahead), kind(1 / size)
    rows = row_shares.shape[1]
    now, before = np.empty(columns, v.dtype), np.empty(columns, v.dtype)
    for block in range(i1 - 1, i0 - 1, -1):  # backwards: the last rows read are still in the cache
        for i in range((block + 1) * rows // BLOCKS - 1, block * rows // BLOCKS - 1, -1):
            own, moved = v[i * columns : (i + 1) * columns], h[i * columns : (i + 1) * columns]
            last = dual[i * columns : (i + 1) * columns]
            _follow(own, last, size, row_shares[:, i], column_shares, done - 1, now, before)
            share = row_shares[done - 1, i]
            _settle(own, moved, last, now, share, column_shares[done - 1], inverse, ahead)


@sums_kernel
def store_dual(i0, i1, part, v, dual, size, row_shares, column_shares, done, columns):
    """Replaces the dual of the rows [i0, i1) by that after ``done`` sweeps.  [overwrites dual]"""
    size = v.dtype.type(size)
    inverse = v.dtype.type(1 / size)
    now, before = np.empty(columns, v.dtype), np.empty(columns, v.dtype)
    for i in range(i0, i1):
        last = dual[i * columns : (i + 1) * columns]
        _follow(
            v[i * columns : (i + 1) * columns], last, size, row_shares[:, i], column_shares, done, now, before
        )  # fmt: skip
        for j in range(columns):
            last[j] = now[j] * inverse


@sums_kernel
def _follow(v, dual, size, row_shares, column_shares, done, now, before):
    """now = c after ``done`` sweeps, before = c one sweep earlier.  [overwrites now, before]"""
    for j in range(v.size):
        now[j] = size * dual[j]
    for k in range(done):
        share, shares = row_shares[k], column_shares[k]
        for j in range(v.size):
            c = now[j]
            before[j] = c
            now[j] = shares[j] * (v[j] - share * (v[j] - c))


@sums_kernel
def _add_changes(now, before, moves):
    """moves += (now - before)^2; returns the sum.  [accumulates into moves]"""
    total = now.dtype.type(0)
    for j in range(now.size):
        square = (now[j] - before[j]) * (now[j] - before[j])
        moves[j] += square
        total += square
    return total


@sums_kernel
def _square_of_difference(x, y):
    total = x.dtype.type(0)
    for j in range(x.size):
        total += (x[j] - y[j]) * (x[j] - y[j])
    return total


@sums_kernel
def _add_squares_of_rest(v, c, share, line):
    """line += q^2.  [accumulates into line]"""
    for j in range(v.size):
        q = v[j] - share * (v[j] - c[j])
        line[j] += q * q


@sums_kernel
def _settle(v, h, dual, c, share, shares, inverse, ahead):
    """dual = C * q / size, w' = (1 - C) * q, or 0 in a zero row, h += v - w', then the look ahead.  [overwrites v, h,
    dual]"""
    kept = v.dtype.type(0 if share == 1 else 1)
    for j in range(v.size):
        q = v[j] - share * (v[j] - c[j])
        taken = shares[j] * q
        new = kept * (q - taken)
        moved = h[j] + (v[j] - new)
        dual[j] = taken * inverse
        h[j] = moved
        v[j] = new - ahead * moved
