"""Winograd's transforms of tiles against products of matrices in float64."""

import numpy as np
import pytest

from sslnet.kernels.conv.winograd.matrices import (
    GRADIENT,
    INPUT,
    OUTPUT,
    WEIGHT_GRADIENT,
    WEIGHTS,
    matrix_of,
)
from sslnet.kernels.conv.winograd.microkernels import stage_rows, transform

from ...calling import call, canaries, close, normal


@pytest.mark.parametrize("kind", [INPUT, OUTPUT, WEIGHTS, GRADIENT, WEIGHT_GRADIENT])
@pytest.mark.parametrize("m", [2, 4])
def test_transform(unit, kind, m):
    matrix = np.array(matrix_of(kind, m, 3), float)
    made, taken = matrix.shape
    count = 2
    source, bias = normal(count, taken, taken, unit.lanes), normal(unit.lanes)
    target = canaries(count, made, made, unit.lanes)
    expected = np.einsum("ia,jb,nabv->nijv", matrix, matrix, source.astype(np.float64)) + (kind == OUTPUT) * bias
    call(
        transform(unit, kind=kind, m=m, r=3),
        *(source, source.strides[1], source.strides[2], target, target.strides[1], target.strides[2], count),
        *(source.strides[0], target.strides[0], bias if kind == OUTPUT else 0),
    )
    close(target, expected)


def test_transforms_of_the_three_operands_make_a_convolution():
    rng = np.random.default_rng(0)
    for m, r in ((2, 3), (4, 3), (2, 5), (4, 5)):
        x, w = rng.standard_normal(m + r - 1), rng.standard_normal(r)
        into, of_weights, out = (np.array(matrix_of(kind, m, r), float) for kind in (INPUT, WEIGHTS, OUTPUT))
        np.testing.assert_allclose(out @ ((into @ x) * (of_weights @ w)), np.correlate(x, w), atol=1e-12)


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("width", [5, 11])
def test_stage_rows(unit, channels, width):
    height, first_row, first_column, rows, columns = 4, -1, -2, 6, width + 5
    there = min(channels, unit.lanes)
    source = normal(there, height, width)
    target = canaries(rows * columns + unit.lanes, unit.lanes)
    call(
        stage_rows(unit),
        *(source, source.strides[0], there, height, width, first_row, first_column, rows, columns, target),
    )
    expected = np.zeros((rows, columns, unit.lanes), np.float32)
    for row, column in np.ndindex(rows, columns):
        h, w = first_row + row, first_column + column
        if 0 <= h < height and 0 <= w < width:
            expected[row, column, :there] = source[:, h, w]
    np.testing.assert_array_equal(target[: rows * columns].reshape(expected.shape), expected)
