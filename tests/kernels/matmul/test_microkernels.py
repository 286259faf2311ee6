"""The micro-kernels of the fully connected layer against products in float64."""

import numpy as np
import pytest

from sslnet.kernels.matmul.microkernels import dot_tile, outer_tile, sum_tile

from ..calling import call, canaries, close, normal


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("columns", [3, 8, 21])
@pytest.mark.parametrize("missing", [0, 1])
def test_dot_tile(unit, columns, missing, relu):
    rows, images = 3, 2
    left, count = rows - missing, images - missing
    w, a, first = normal(left, columns), normal(images, columns), normal(rows)
    steps, rest = divmod(columns, unit.lanes)
    blocks = steps + (rest > 0)
    packed = np.zeros((images, blocks * unit.lanes), np.float32)
    packed[:, :columns] = a
    packed = np.ascontiguousarray(packed.reshape(images, blocks, unit.lanes).transpose(1, 0, 2))
    aligned = normal(*packed.shape)
    aligned[...] = packed
    for start in (first, 0):
        y = canaries(images, 10)
        y[:count, :left] = 1.25
        expected = y.astype(np.float64)
        product = a.astype(np.float64) @ w.T + (first[:left] if start is first else 1.25)
        expected[:count, :left] = (np.maximum(product, 0) if relu else product)[:count]
        call(
            dot_tile(unit, rows=rows, images=images, ahead=1),
            *(w, w.strides[0], left, steps, rest, aligned, y, y.strides[0], count, start, relu, w),
        )
        close(y, expected)


@pytest.mark.parametrize("missing", [0, 1])
def test_sum_tile(unit, missing):
    rows, vectors, images = 3, 2, 4
    width = vectors * unit.lanes
    left, columns = rows - missing, width - missing
    w, a, y = normal(left, width + 3), normal(images, rows), normal(images, width, seed=1)
    a[:, left:] = 0
    expected = y.astype(np.float64)
    expected[:, :columns] += a[:, :left].astype(np.float64) @ w[:, :columns]
    call(sum_tile(unit, rows=rows, vectors=vectors), w, w.strides[0], left, columns, a, y, images, 0)
    close(y, expected)


@pytest.mark.parametrize("missing", [0, 1])
def test_outer_tile(unit, missing):
    rows, vectors, images = 3, 2, 4
    width = vectors * unit.lanes
    left, columns = rows - missing, width - missing
    w, a, b = normal(left, width, seed=1), normal(images, rows), normal(images, width)
    expected = w.astype(np.float64)
    expected[:, :columns] += (a.astype(np.float64).T @ b)[:left, :columns]
    call(outer_tile(unit, rows=rows, vectors=vectors), w, w.strides[0], left, columns, a, b, images, 0)
    close(w, expected)
