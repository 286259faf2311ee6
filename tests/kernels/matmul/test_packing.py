"""Packing for the fully connected layer against loops."""

import numpy as np
import pytest

from sslnet.kernels.matmul.packing import copy_blocks, copy_vectors, put_vectors

from ..calling import call, canaries, close, normal


@pytest.mark.parametrize("columns", [3, 8, 13])
def test_copy_vectors(unit, columns):
    rows, target_rows, vectors = 2, 3, -(-columns // unit.lanes)
    source, target = normal(rows, 20), canaries(vectors, target_rows, unit.lanes)
    expected = np.zeros_like(target)
    for row, column in np.ndindex(rows, columns):
        expected[column // unit.lanes, row, column % unit.lanes] = source[row, column]
    call(
        copy_vectors(unit),
        *(source, source.strides[0], rows, columns, target, target_rows, target.strides[1], vectors, target.strides[0]),
    )
    close(target, expected)


@pytest.mark.parametrize("width", [3, 10])
def test_copy_blocks(unit, width):
    rows, columns, blocks = 3, 17, -(-17 // width)
    source, target = normal(rows, 20), canaries(blocks * rows * width + 1)
    expected = np.zeros((blocks, rows, width))
    for row, column in np.ndindex(rows, columns):
        expected[column // width, row, column % width] = source[row, column]
    call(copy_blocks(unit), source, source.strides[0], rows, columns, target, width, blocks)
    close(target, np.append(expected, target[-1]))


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("columns", [3, 8, 13])
def test_put_vectors(unit, columns, relu):
    source, bias = normal(3, 24), normal(columns)
    for added in (bias, 0):
        target = canaries(3, 15)
        expected = target.astype(np.float64)
        values = source[:, :columns] + (bias if added is bias else 0)
        expected[:, :columns] = np.maximum(values, 0) if relu else values
        call(put_vectors(unit), source, source.strides[0], 3, columns, target, target.strides[0], added, relu)
        close(target, expected)
