"""The prox of group norms where each element has a step size of its own, as in the adaptive update rules.

The norm of a tile at the optimum determines all its elements; the norm is the root of one equation per tile:

    z = x * root / (root + strength * steps),   root = ||z||:   sum of (x / (root + strength * steps))^2 = 1

and z = 0 where sum of (x / steps)^2 <= strength^2. Newton's method on 1 / sqrt(sum) - 1, which is concave and
increasing: from a point left of the root it climbs to it without passing it. Such a point is ||x|| - strength * (mean
of the steps, each weighed by its x^2), for the sum is convex in the steps. The root is sought in float64 for arrays of
any precision.

Panels, tiles and threads are as in ``prox``.

Ref: More and Sorensen 1983, eq. 3.10 (the form of the equation in which Newton's method is fast)
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.optim.prox import LEAST, WIDE, bounds, expand, largest_sum, reduce_tiles
from sslnet.kernels.runtime.compiler import inlined_sums_kernel, sums_kernel

NEWTON_STEPS = 30
ROOT_TOLERANCE = 1e-6
"""Newton's method stops when its step, relative to the root, is below this; the next step would be about its square."""


@sums_kernel
def prox_diagonal(i0, i1, thread, x, steps, height, width, span, strength):
    """x becomes the z that minimises sum of (z - x)^2 / (2 * steps) + strength * sum over tiles of ||z_tile||.  [overwrites x]

    steps     (rows, columns) >= 0  the step of each element; an element with step 0 does not change
    strength  >= 0
    """
    line, sums = np.empty(span), np.empty((3, span))
    for panel in range(i0, i1):
        row, first, end = bounds(panel, x.shape[1], height, span)
        if width >= WIDE:
            for a in range(first, end, width):
                root = _root(x, steps, row, height, a, a + width, strength)
                for i in range(row, row + height):
                    shrink_tile(x[i, a : a + width], steps[i, a : a + width], root, strength)
        else:
            _roots(x, steps, row, height, first, end, width, strength, line, sums)
            for i in range(row, row + height):
                _shrink_each(x[i, first:end], steps[i, first:end], line, strength)


@sums_kernel
def subtract_dual_diagonal(i0, i1, thread, x, dual, steps):
    """x -= steps * dual, flat, element by element.  [overwrites x]"""
    x, dual, steps = x[i0:i1], dual[i0:i1], steps[i0:i1]
    for i in range(x.size):
        x[i] -= steps[i] * dual[i]


@sums_kernel
def ascend_diagonal(i0, i1, thread, x, dual, height, width, span, steps, strength, is_zero, change):
    """As prox.ascend, in the metric 1 / steps (rows, columns): the block's own problem is the one of prox_diagonal.

    [overwrites x, dual, is_zero, change]
    """
    line, sums, moves = np.empty(span), np.empty((3, span)), np.empty(span)
    for panel in range(i0, i1):
        row, first, end = bounds(panel, x.shape[1], height, span)
        for i in range(row, row + height):
            add_product(x[i, first:end], dual[i, first:end], steps[i, first:end])
        if width >= WIDE:
            largest = 0.0
            for a in range(first, end, width):
                root = _root(x, steps, row, height, a, a + width, strength)
                is_zero[row // height, a // width] = root == 0
                total = 0.0
                for i in range(row, row + height):
                    part = slice(a, a + width)
                    total += move_tile(x[i, part], dual[i, part], steps[i, part], root, strength)
                largest = max(largest, total)
        else:
            tiles = (end - first) // width
            _roots(x, steps, row, height, first, end, width, strength, line, sums)
            for t in range(tiles):
                is_zero[row // height, first // width + t] = line[t * width] == 0
            moves[:] = 0
            for i in range(row, row + height):
                _move_each(x[i, first:end], dual[i, first:end], steps[i, first:end], line, strength, moves)
            largest = largest_sum(moves, width, tiles, sums[0])
        change[panel] = np.sqrt(largest) / strength


@inlined_sums_kernel
def at_least(divisor):
    """The larger of the divisor and LEAST; a step can be zero, as a rate divided by a large gradient's mean."""
    return LEAST if divisor < LEAST else divisor


# -- one tile: all its elements share a root -----------------------------------------------------------------------------


@sums_kernel
def _root(x, steps, row, height, a, b, strength):
    """The root of the tile in columns [a, b) of the rows from ``row`` on; 0 if the tile becomes zero."""
    square, dual, weighed = add_first_sums(x, steps, row, height, a, b, 0.0, 0.0, 0.0)
    if dual <= strength * strength:
        return 0.0
    root = start(square, weighed, strength)
    for _ in range(NEWTON_STEPS):
        total, slope = add_newton_sums(x, steps, row, height, a, b, root, strength, 0.0, 0.0)
        climb = climb_of(total, slope)
        root += climb
        if climb <= ROOT_TOLERANCE * root:
            break
    return max(0.0, root)


@inlined_sums_kernel
def start(square, weighed, strength):
    """A point left of the root."""
    return max(0.0, np.sqrt(square) - strength * weighed / square)


@inlined_sums_kernel
def climb_of(total, slope):
    """Newton's step, given sum of (x / (root + strength * steps))^2 and sum of x^2 / (...)^3."""
    return total * (np.sqrt(total) - 1) / slope


@sums_kernel
def first_sums(x, steps):
    """Sums of x^2, (x / steps)^2, steps * x^2."""
    square = dual = weighed = 0.0
    for j in range(x.size):
        value, step = np.float64(x[j]), np.float64(steps[j])
        ratio = value / at_least(step)
        square += value * value
        dual += ratio * ratio
        weighed += step * value * value
    return square, dual, weighed


@inlined_sums_kernel
def add_first_sums(x, steps, row, height, a, b, square, dual, weighed):
    """The three numbers plus first_sums of the tile in columns [a, b) of the rows from ``row`` on."""
    for i in range(row, row + height):
        sums = first_sums(x[i, a:b], steps[i, a:b])
        square += sums[0]
        dual += sums[1]
        weighed += sums[2]
    return square, dual, weighed


@sums_kernel
def newton_sums(x, steps, root, strength):
    """Sums of q and q / (root + strength * steps), q = (x / (root + strength * steps))^2."""
    total = slope = 0.0
    for j in range(x.size):
        inverse = 1 / at_least(root + strength * np.float64(steps[j]))
        ratio = x[j] * inverse
        total += ratio * ratio
        slope += ratio * ratio * inverse
    return total, slope


@inlined_sums_kernel
def add_newton_sums(x, steps, row, height, a, b, root, strength, total, slope):
    """The two numbers plus newton_sums of the tile in columns [a, b) of the rows from ``row`` on."""
    for i in range(row, row + height):
        sums = newton_sums(x[i, a:b], steps[i, a:b], root, strength)
        total += sums[0]
        slope += sums[1]
    return total, slope


@sums_kernel
def shrink_tile(x, steps, root, strength):
    """x *= root / (root + strength * steps).  [overwrites x]"""
    if root == 0:
        x[:] = 0
        return
    root, strength = x.dtype.type(root), x.dtype.type(strength)
    for j in range(x.size):
        x[j] *= root / at_least(root + strength * steps[j])


@sums_kernel
def move_tile(x, dual, steps, root, strength):
    """As shrink_tile, and dual = decrease of x / steps; returns the squared change of the dual.  [overwrites x,
    dual]"""
    total = 0.0
    root, strength = x.dtype.type(root), x.dtype.type(strength)
    for j in range(x.size):
        inverse = 1 / at_least(root + strength * steps[j])
        multiplier = x[j] * (strength * inverse)
        move = multiplier - dual[j]
        total += move * move
        x[j] *= root * inverse
        dual[j] = multiplier
    return total


# -- narrow tiles: a panel of them side by side --------------------------------------------------------------------------


@sums_kernel
def _roots(x, steps, row, height, first, end, width, strength, line, sums):
    """The root of each column's tile in a panel, 0 for a tile that becomes zero.  [overwrites line, sums (3, span)]"""
    count, tiles = end - first, (end - first) // width
    columns, roots = np.zeros((3, count)), np.empty(tiles)
    for i in range(row, row + height):
        values, sizes = x[i, first:end], steps[i, first:end]
        for j in range(count):
            value, step = np.float64(values[j]), np.float64(sizes[j])
            ratio = value / at_least(step)
            columns[0, j] += value * value
            columns[1, j] += ratio * ratio
            columns[2, j] += step * value * value
    for k in range(3):
        reduce_tiles(columns[k], width, tiles, sums[k])
    for t in range(tiles):
        roots[t] = -1.0 if sums[1, t] <= strength * strength else start(sums[0, t], sums[2, t], strength)
    for _ in range(NEWTON_STEPS):
        expand(roots, width, tiles, line)
        columns[:2] = 0
        for i in range(row, row + height):
            values, sizes = x[i, first:end], steps[i, first:end]
            for j in range(count):
                inverse = 1 / at_least(line[j] + strength * np.float64(sizes[j]))
                ratio = values[j] * inverse
                columns[0, j] += ratio * ratio
                columns[1, j] += ratio * ratio * inverse
        reduce_tiles(columns[0], width, tiles, sums[0])
        reduce_tiles(columns[1], width, tiles, sums[1])
        moving = False
        for t in range(tiles):
            if roots[t] >= 0:
                climb = climb_of(sums[0, t], sums[1, t])
                roots[t] = max(0.0, roots[t] + climb)
                moving |= climb > ROOT_TOLERANCE * roots[t]
        if not moving:
            break
    for t in range(tiles):
        roots[t] = max(0.0, roots[t])
    expand(roots, width, tiles, line)


@sums_kernel
def _shrink_each(x, steps, roots, strength):
    """As shrink_tile, with a root for each element, 0 for elements that become zero.  [overwrites x]"""
    for j in range(x.size):
        x[j] = x[j] * (roots[j] / at_least(roots[j] + strength * steps[j])) if roots[j] > 0 else 0


@sums_kernel
def _move_each(x, dual, steps, roots, strength, moves):
    """As move_tile, with a root for each element; adds the squared changes to moves.  [overwrites x, dual]"""
    for j in range(x.size):
        inverse = 1 / at_least(roots[j] + strength * steps[j])
        multiplier = x[j] * (strength * inverse)
        move = multiplier - dual[j]
        moves[j] += move * move
        x[j] *= roots[j] * inverse
        dual[j] = multiplier


@sums_kernel
def add_product(x, y, factors):
    """x += y * factors.  [accumulates into x]"""
    for j in range(x.size):
        x[j] += factors[j] * y[j]
