"""Winograd's transforms of tiles against products of matrices in float64."""

import numpy as np
import pytest

from sslnet.kernels.conv.winograd.matrices import (
    GRADIENT,
    INPUT,
    OUTPUT,
    WEIGHT_GRADIENT,
    WEIGHTS,
    TileShape,
    matrix_of,
)
from sslnet.kernels.conv.winograd.microkernels import stage_rows, transform

from ...calling import call, canaries, close, normal

SHAPES = [TileShape(2, 2, 3, 3), TileShape(4, 4, 3, 3), TileShape(8, 1, 5, 1), TileShape(1, 6, 1, 3)]


@pytest.mark.parametrize("kind", [INPUT, OUTPUT, WEIGHTS, GRADIENT, WEIGHT_GRADIENT])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_transform(unit, kind, shape):
    down, along = (np.array(matrix_of(kind, *axis), float) for axis in ((shape.m_h, shape.r_h), (shape.m_w, shape.r_w)))
    rows, columns = down.shape[0], along.shape[0]
    count = 2
    source, bias = normal(count, down.shape[1], along.shape[1], unit.lanes), normal(unit.lanes)
    target = canaries(count, rows, columns, unit.lanes)
    expected = np.einsum("ia,jb,nabv->nijv", down, along, source.astype(np.float64)) + (kind == OUTPUT) * bias
    call(
        transform(unit, kind=kind, shape=shape),
        *(source, source.strides[1], source.strides[2], target, target.strides[1], target.strides[2], count),
        *(source.strides[0], target.strides[0], bias if kind == OUTPUT else 0),
    )
    close(target, expected)


def test_transforms_of_the_three_operands_make_a_convolution():
    rng = np.random.default_rng(0)
    for m, r in ((2, 3), (4, 3), (6, 3), (8, 3), (2, 5), (4, 5), (6, 5), (8, 5), (1, 1)):
        x, w = rng.standard_normal(m + r - 1), rng.standard_normal(r)
        into, of_weights, out = (np.array(matrix_of(kind, m, r), float) for kind in (INPUT, WEIGHTS, OUTPUT))
        np.testing.assert_allclose(out @ ((into @ x) * (of_weights @ w)), np.correlate(x, w), atol=1e-11)


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
