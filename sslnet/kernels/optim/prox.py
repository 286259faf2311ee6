"""Group norms over tiles of a matrix: their values, sub-gradients and proximal operators.

A matrix (rows, columns) is covered by equal tiles of height x width: rows are tiles 1 x columns, columns are tiles
rows x 1, single weights 1 x 1. One kernel serves them all: it takes a *panel*, a band of `height` rows cut to whole
tiles that fit into the cache, sums squares per tile, turns the sums into one number a tile, and goes over the panel again.
Tiles that are wide enough to fill vectors are taken one by one; narrow ones side by side, one sum a column.

Every kernel takes a range of panels, [i0, i1), for ``threads.parallel``; ``Panels`` counts them. Panels are
independent and what happens in one depends on nothing outside it, so results do not depend on the number of threads.

Ref: Parikh and Boyd 2014, "Proximal Algorithms", section 6.5.1 (norms); Jenatton et al. 2011 (nested groups)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet.kernels.runtime.compiler import inlined_sums_kernel, sums_kernel

LEAST = np.finfo(np.float32).tiny
"""The least step and the least divisor: below it are float32's denormals, which the kernels flush to zero."""
PANEL_BYTES = 1 << 18
"""The most bytes of a panel of the arrays that a kernel reads twice, so that it stays in a core's own cache."""
LEAST_SPAN = 1024
"""The least columns of a panel; shorter pieces of a row cost more than the cache saves."""
LEAST_PANELS = 16
SHORTEST_SPAN = 64
"""Matrices of tall tiles are cut into LEAST_PANELS panels, for the threads, unless pieces become shorter than this."""
WIDE = 32
"""Tiles from this width on are processed one by one; narrower ones side by side, which vectorises at any width."""


@dataclass(frozen=True)
class Panels:
    """How a matrix of rows x columns with tiles of height x width is cut into panels.

    span   columns of a panel, a multiple of width (the last panel of a band may have fewer)
    """

    rows: int
    columns: int
    height: int
    width: int
    span: int

    @classmethod
    def cut(cls, rows: int, columns: int, height: int, width: int, bytes_per_element: int = 12) -> Panels:
        """The panels of a matrix; bytes_per_element: bytes of all arrays that the kernel reads, per element."""
        fitting = max(LEAST_SPAN, PANEL_BYTES // (height * bytes_per_element))
        bands = rows // height
        if bands * -(-columns // fitting) < LEAST_PANELS:
            fitting = max(SHORTEST_SPAN, -(-columns * bands // LEAST_PANELS))
        return cls(rows, columns, height, width, min(columns, max(1, fitting // width) * width))

    @property
    def count(self) -> int:
        return (self.rows // self.height) * -(-self.columns // self.span)

    @property
    def tiles(self) -> tuple[int, int]:
        """Number of tiles down and along the matrix."""
        return self.rows // self.height, self.columns // self.width


@inlined_sums_kernel
def bounds(panel, columns, height, span):
    """(first row, first column, end column) of a panel."""
    across = (columns + span - 1) // span
    first = (panel % across) * span
    return (panel // across) * height, first, min(columns, first + span)


@sums_kernel
def square_sum(x, row, height, a, b):
    """Sum of squares of one tile: columns [a, b) of the rows from row on."""
    total = x.dtype.type(0)
    for i in range(row, row + height):
        values = x[i, a:b]
        part = x.dtype.type(0)
        for j in range(values.size):
            part += values[j] * values[j]
        total += part
    return total


@sums_kernel
def _square_sums(x, row, height, first, end, width, sums, line):
    """Computes the sums of squares of the tiles of a panel.  [overwrites sums; line is scratch of the panel's width]"""
    tiles = (end - first) // width
    if width >= WIDE:
        for t in range(tiles):
            sums[t] = square_sum(x, row, height, first + t * width, first + (t + 1) * width)
        return
    line[: end - first] = 0
    for i in range(row, row + height):
        values = x[i, first:end]
        for j in range(values.size):
            line[j] += values[j] * values[j]
    reduce_tiles(line, width, tiles, sums)


@inlined_sums_kernel
def reduce_tiles(line, width, tiles, sums):
    """sums[t] = sum of the width values of tile t.  [overwrites sums]"""
    if width == 1:
        sums[:tiles] = line[:tiles]
        return
    for t in range(tiles):
        total = line[t * width]
        for j in range(1, width):
            total += line[t * width + j]
        sums[t] = total


@inlined_sums_kernel
def expand(values, width, tiles, line):
    """line[j] = value of the tile of column j.  [overwrites line]"""
    if width == 1:
        line[:tiles] = values[:tiles]
    elif width >= WIDE:
        for t in range(tiles):
            line[t * width : (t + 1) * width] = values[t]
    else:
        for t in range(tiles):
            for j in range(t * width, (t + 1) * width):
                line[j] = values[t]


@sums_kernel
def shrink(x, moved, row, height, first, end, width, threshold, line, sums):
    """Subtracts the fraction min(1, threshold / norm) of every tile of a panel from it, and adds it to moved unless
    empty.

    [overwrites x, accumulates into moved; line and sums are scratch of the panel's width]
    """
    if width >= WIDE:
        for a in range(first, end, width):
            share = share_of(square_sum(x, row, height, a, a + width), threshold)
            for i in range(row, row + height):
                if moved.size:
                    add_scaled(moved[i, a : a + width], x[i, a : a + width], share)
                take_off(x[i, a : a + width], share)
        return
    _shares(x, row, height, first, end, width, threshold, line, sums)
    for i in range(row, row + height):
        values = x[i, first:end]
        if moved.size:
            gains = moved[i, first:end]
            for j in range(values.size):
                gains[j] += line[j] * values[j]
        for j in range(values.size):
            values[j] -= line[j] * values[j]


@inlined_sums_kernel
def share_of(square, threshold):
    """The fraction of a tile that the prox subtracts: min(1, threshold / norm), 0 for a threshold of 0."""
    norm = np.sqrt(square)
    divisor = threshold if norm <= threshold else norm  # NaN where the norm is
    return threshold / (LEAST if divisor < LEAST else divisor)


@sums_kernel
def _shares(x, row, height, first, end, width, threshold, line, sums):
    """Computes the share of each tile of a panel, and of each column.  [overwrites sums (tiles), line (columns)]"""
    tiles = (end - first) // width
    _square_sums(x, row, height, first, end, width, sums, line)
    for t in range(tiles):
        sums[t] = share_of(sums[t], threshold)
    expand(sums, width, tiles, line)


@sums_kernel
def norms(i0, i1, thread, x, height, width, span, out):
    """Computes the Euclidean norm of every tile.  [overwrites out (tiles down, tiles along)]"""
    line, sums = np.empty(span, x.dtype), np.empty(span, x.dtype)
    for panel in range(i0, i1):
        row, first, end = bounds(panel, x.shape[1], height, span)
        _square_sums(x, row, height, first, end, width, sums, line)
        for t in range((end - first) // width):
            out[row // height, first // width + t] = np.sqrt(sums[t])


@sums_kernel
def add_subgradient(i0, i1, thread, x, grad, height, width, span, strength):
    """grad += strength * x / norm of its tile; a tile of zeros adds nothing.  [accumulates into grad]"""
    line, sums = np.empty(span, x.dtype), np.empty(span, x.dtype)
    strength = x.dtype.type(strength)
    for panel in range(i0, i1):
        row, first, end = bounds(panel, x.shape[1], height, span)
        tiles = (end - first) // width
        _square_sums(x, row, height, first, end, width, sums, line)
        for t in range(tiles):
            sums[t] = strength / np.sqrt(sums[t]) if sums[t] > 0 else 0
        expand(sums, width, tiles, line)
        for i in range(row, row + height):
            values, out = x[i, first:end], grad[i, first:end]
            for j in range(values.size):
                out[j] += line[j] * values[j]


@sums_kernel
def prox(i0, i1, thread, x, moved, height, width, span, threshold):
    """x becomes the z that minimises ||z - x||^2 / 2 + threshold * sum over tiles of ||z_tile||.  [overwrites x]

    z_tile = x_tile - min(1, threshold / ||x_tile||) * x_tile

    moved      (rows, columns) or (0, 0)  gains what x loses  [accumulates into moved]
    threshold  >= 0
    """
    line, sums = np.empty(span, x.dtype), np.empty(span, x.dtype)
    threshold = x.dtype.type(threshold)
    for panel in range(i0, i1):
        row, first, end = bounds(panel, x.shape[1], height, span)
        shrink(x, moved, row, height, first, end, width, threshold, line, sums)


# -- the prox of a sum of several tilings: one block of its dual at a time ------------------------------------------------


@sums_kernel
def subtract_dual(i0, i1, thread, x, dual, step):
    """x -= step * dual, flat.  [overwrites x]"""
    add_scaled(x[i0:i1], dual[i0:i1], x.dtype.type(-step))


@sums_kernel
def ascend(i0, i1, thread, x, dual, height, width, span, step, strength, is_zero, change):
    """One step of block-coordinate ascent on the dual: exact for the dual of this tiling, with the other duals fixed.

    With r = x + step * dual, tile by tile: dual = r * min(1 / step, strength / ||r||), x = r - step * dual; a tile whose
    new dual is inside its ball, ||dual|| < strength, is zero at the optimum.  [overwrites x, dual, is_zero, change]

    dual    (rows, columns)
    is_zero (tiles down, tiles along)  uint8, 1: the tile is zero at the optimum
    change  (panels)                   the largest ||change of dual|| of a tile, divided by strength
    """
    kind = x.dtype.type
    line, sums, moves = np.empty(span, x.dtype), np.empty(span, x.dtype), np.empty(span, x.dtype)
    threshold, step, inverse = kind(step * strength), kind(step), kind(1 / step)
    for panel in range(i0, i1):
        row, first, end = bounds(panel, x.shape[1], height, span)
        for i in range(row, row + height):
            add_scaled(x[i, first:end], dual[i, first:end], step)
        if width >= WIDE:
            largest = kind(0)
            for a in range(first, end, width):
                share = share_of(square_sum(x, row, height, a, a + width), threshold)
                is_zero[row // height, a // width] = share == 1
                total = kind(0)
                for i in range(row, row + height):
                    total += move_share(x[i, a : a + width], dual[i, a : a + width], share, inverse)
                largest = max(largest, total)
        else:
            tiles = (end - first) // width
            _shares(x, row, height, first, end, width, threshold, line, sums)
            for t in range(tiles):
                is_zero[row // height, first // width + t] = sums[t] == 1
            moves[:] = 0
            for i in range(row, row + height):
                _move_shares(x[i, first:end], dual[i, first:end], line, inverse, moves)
            largest = largest_sum(moves, width, tiles, sums)
        change[panel] = np.sqrt(largest) / strength


@sums_kernel
def move_share(x, dual, share, inverse):
    """dual = share * x * inverse, x -= share * x; returns the squared change of the dual.  [overwrites x, dual]"""
    total = x.dtype.type(0)
    for j in range(x.size):
        taken = share * x[j]
        move = taken * inverse - dual[j]
        total += move * move
        x[j] -= taken
        dual[j] = taken * inverse
    return total


@sums_kernel
def _move_shares(x, dual, shares, inverse, moves):
    """As move_share, with a share for each element; adds the squared changes to moves.  [overwrites x, dual]"""
    for j in range(x.size):
        taken = shares[j] * x[j]
        move = taken * inverse - dual[j]
        moves[j] += move * move
        x[j] -= taken
        dual[j] = taken * inverse


@sums_kernel
def add_scaled(x, y, factor):
    """x += factor * y.  [accumulates into x]"""
    for i in range(x.size):
        x[i] += factor * y[i]


@sums_kernel
def take_off(x, share):
    """x -= share * x.  [overwrites x]"""
    for i in range(x.size):
        x[i] -= share * x[i]


@inlined_sums_kernel
def largest_sum(squares, width, tiles, sums):
    """The largest of the tiles' sums.  [overwrites sums]"""
    reduce_tiles(squares, width, tiles, sums)
    largest = sums[0]
    for t in range(1, tiles):
        largest = max(largest, sums[t])
    return largest


@sums_kernel
def set_to_zero(i0, i1, thread, x, height, width, is_zero):
    """Sets the marked tiles to exactly zero, for a range of tile rows.  [overwrites x]"""
    for down in range(i0, i1):
        for along in range(is_zero.shape[1]):
            if is_zero[down, along]:
                x[down * height : (down + 1) * height, along * width : (along + 1) * width] = 0
