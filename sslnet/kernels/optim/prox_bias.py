"""The prox of group norms whose groups contain one value beside their tile, such as the bias of a filter.

    minimise ||z - x||^2 / (2 * step) + (b - bias)^2 / (2 * bias_step) + strength * sum over tiles of ||(z_tile, b_tile)||

The bias is a parameter of its own with its own step. With root = ||(z_tile, b_tile)|| at the optimum,

    z = x * root / (root + strength * step),  b = bias * root / (root + strength * bias_step)

and root solves, tile by tile, ||x_tile||^2 / (root + strength * step)^2 + bias^2 / (root + strength * bias_step)^2 = 1:
Newton's method on two numbers where the tile has one step; where each element has its own, as in ``prox_diagonal``.

Every kernel takes a range of tiles, [i0, i1), counted along the rows. In the order of the tiles,

bias     (tiles)          the bias of each tile
dual     (rows, columns)  the dual of x;  bias_dual (tiles): the dual of the biases
is_zero  (tiles)  uint8   1 for tiles that are zero at the optimum, with their biases
change   (tiles)          ||change of (dual, bias_dual)|| of a tile, divided by strength

Ref: as prox_diagonal
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.optim.prox import add_scaled, move_share, square_sum, take_off
from sslnet.kernels.optim.prox_diagonal import (
    NEWTON_STEPS,
    ROOT_TOLERANCE,
    add_first_sums,
    add_newton_sums,
    add_product,
    at_least,
    climb_of,
    move_tile,
    shrink_tile,
    start,
)
from sslnet.kernels.runtime.compiler import inlined_sums_kernel, sums_kernel


@inlined_sums_kernel
def _corner(tile, columns, height, width):
    """(first row, first column) of a tile."""
    across = columns // width
    return (tile // across) * height, (tile % across) * width


# -- one step for x, one for the biases ----------------------------------------------------------------------------------


@sums_kernel
def prox(i0, i1, thread, x, moved, bias, height, width, threshold, bias_threshold):
    """x and bias become the minimisers.  [overwrites x, bias, accumulates into moved]

    moved       (rows, columns) or (0, 0)  gains what x loses
    threshold   strength * step > 0;  bias_threshold: strength * bias_step > 0
    """
    for tile in range(i0, i1):
        row, a = _corner(tile, x.shape[1], height, width)
        root = _root_of_two(square_sum(x, row, height, a, a + width), bias[tile], threshold, bias_threshold)
        share = x.dtype.type(threshold / (root + threshold))
        bias[tile] = 0 if share == 1 else bias[tile] * (root / (root + bias_threshold))
        for i in range(row, row + height):
            if moved.size:
                add_scaled(moved[i, a : a + width], x[i, a : a + width], share)
            take_off(x[i, a : a + width], share)


@sums_kernel
def ascend(
    i0, i1, thread, x, dual, bias, bias_dual, height, width, step, bias_step, strength, is_zero, change
):  # fmt: skip
    """As prox.ascend, for groups with a bias.  [overwrites x, bias, duals, is_zero, change]"""
    kind = x.dtype.type
    threshold, bias_threshold = step * strength, bias_step * strength
    for tile in range(i0, i1):
        row, a = _corner(tile, x.shape[1], height, width)
        for i in range(row, row + height):
            add_scaled(x[i, a : a + width], dual[i, a : a + width], kind(step))
        value = bias[tile] + bias_step * bias_dual[tile]
        root = _root_of_two(square_sum(x, row, height, a, a + width), value, threshold, bias_threshold)
        share = kind(threshold / (root + threshold))
        total = 0.0
        for i in range(row, row + height):
            total += move_share(x[i, a : a + width], dual[i, a : a + width], share, kind(1 / step))
        multiplier = value * strength / (root + bias_threshold)
        total += (multiplier - bias_dual[tile]) ** 2
        bias_dual[tile], change[tile], is_zero[tile] = multiplier, np.sqrt(total) / strength, share == 1
        bias[tile] = 0 if share == 1 else value * (root / (root + bias_threshold))


@sums_kernel
def _root_of_two(square, value, threshold, bias_threshold):
    """The root for a tile of this sum of squares and a bias of this value; 0 where they become zero."""
    a, b, p, q = np.float64(square), np.float64(value) ** 2, np.float64(threshold), np.float64(bias_threshold)
    if a / (p * p) + b / (q * q) <= 1:
        return 0.0
    root = max(0.0, np.sqrt(a + b) - max(p, q))
    for _ in range(NEWTON_STEPS):
        first, second = a / (root + p) ** 2, b / (root + q) ** 2
        climb = climb_of(first + second, first / (root + p) + second / (root + q))
        root = max(0.0, root + climb)
        if climb <= ROOT_TOLERANCE * root:
            break
    return root


# -- a step for each element ---------------------------------------------------------------------------------------------


@sums_kernel
def prox_diagonal(i0, i1, thread, x, steps, bias, bias_steps, height, width, strength):
    """As prox, with steps (rows, columns) and bias_steps (tiles), all > 0.  [overwrites x, bias]"""
    for tile in range(i0, i1):
        row, a = _corner(tile, x.shape[1], height, width)
        root = _root(x, steps, bias[tile], bias_steps[tile], row, height, a, a + width, strength)
        bias[tile] = bias[tile] * (root / at_least(root + strength * bias_steps[tile]))
        for i in range(row, row + height):
            shrink_tile(x[i, a : a + width], steps[i, a : a + width], root, strength)


@sums_kernel
def ascend_diagonal(
    i0, i1, thread, x, dual, bias, bias_dual, height, width, steps, bias_steps, strength, is_zero, change
):  # fmt: skip
    """As ascend, with the steps of prox_diagonal.  [overwrites x, bias, duals, is_zero, change]"""
    for tile in range(i0, i1):
        row, a = _corner(tile, x.shape[1], height, width)
        for i in range(row, row + height):
            add_product(x[i, a : a + width], dual[i, a : a + width], steps[i, a : a + width])
        step = bias_steps[tile]
        value = bias[tile] + step * bias_dual[tile]
        root = _root(x, steps, value, step, row, height, a, a + width, strength)
        total = 0.0
        for i in range(row, row + height):
            part = slice(a, a + width)
            total += move_tile(x[i, part], dual[i, part], steps[i, part], root, strength)
        bottom = at_least(root + strength * step)
        multiplier = value * strength / bottom
        total += (multiplier - bias_dual[tile]) ** 2
        bias[tile], bias_dual[tile] = value * (root / bottom), multiplier
        is_zero[tile], change[tile] = root == 0, np.sqrt(total) / strength


@sums_kernel
def _root(x, steps, value, step, row, height, a, b, strength):
    """The root for the tile in columns [a, b) of the rows from row on and a bias with its step; 0 where they become zero."""
    other, threshold = np.float64(value) ** 2, strength * np.float64(step)
    dual, weighed = other / at_least(np.float64(step)) ** 2, step * other
    square, dual, weighed = add_first_sums(x, steps, row, height, a, b, other, dual, weighed)
    if dual <= strength * strength:
        return 0.0
    root = start(square, weighed, strength)
    for _ in range(NEWTON_STEPS):
        bottom = at_least(root + threshold)
        share = other / bottom**2
        total, slope = add_newton_sums(x, steps, row, height, a, b, root, strength, share, share / bottom)
        climb = climb_of(total, slope)
        root = max(0.0, root + climb)
        if climb <= ROOT_TOLERANCE * root:
            break
    return root
