"""The binary tree by which arrays are added: neighbours first, then pairs, then pairs of pairs.

    ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))

A process that holds 2, 4, ... neighbouring parts adds a whole branch, so with a power of two of parts the bits of the sum
do not depend on how many processes share the work. With another number the last branches are shorter.
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.denormals import flushed
from sslnet.kernels.runtime.jit import spread

BLOCK = 1 << 11
"""Elements that are added at a time: those of all ranks then fit into a core's own cache."""


@exact_kernel
def add(i0, i1, thread, source, target):
    """target += source"""
    source, target = source[i0:i1], target[i0:i1]
    for q in range(target.size):
        target[q] += source[q]


@exact_kernel
def sum_rows(i0, i1, thread, rows, begin, end):
    """Every row becomes the sum of all rows by the tree, for the blocks i0 .. i1 - 1, of BLOCK columns, of the columns
    begin .. end - 1.  [overwrites rows]"""
    count = rows.shape[0]
    for block in range(i0, i1):
        first = begin + block * BLOCK
        last = min(first + BLOCK, end)
        step = 1
        while step < count:
            for k in range(0, count - step, 2 * step):
                target, source = rows[k][first:last], rows[k + step][first:last]
                for q in range(target.size):
                    target[q] += source[q]
            step *= 2
        total = rows[0][first:last]
        for k in range(1, count):
            target = rows[k][first:last]
            for q in range(target.size):
                target[q] = total[q]


def tree_sum(values: np.ndarray) -> np.ndarray:
    """The sum over the first axis by the tree, of a few small arrays."""
    rows = [np.array(row) for row in values]
    while len(rows) > 1:
        rows = [rows[k] + rows[k + 1] if k + 1 < len(rows) else rows[k] for k in range(0, len(rows), 2)]
    return rows[0]


def add_to(source: np.ndarray, target: np.ndarray) -> None:
    """target += source, flat arrays, on all threads.  [overwrites target]"""
    spread(add, target.size, 1, source, target)


def add_to_alone(source: np.ndarray, target: np.ndarray) -> None:
    """target += source, on the calling thread.  [overwrites target]"""
    flushed(add, 0, target.size, 0, source, target)


def sum_columns(rows: np.ndarray, first: int, last: int, *, alone: bool = False) -> None:
    """Makes every row the sum of all rows, in the columns first .. last - 1.  [overwrites rows]

    alone   on the calling thread only
    """
    blocks = -(-(last - first) // BLOCK)
    if alone:
        flushed(sum_rows, 0, blocks, 0, rows, first, last)
    else:
        spread(sum_rows, blocks, BLOCK * len(rows), rows, first, last)
