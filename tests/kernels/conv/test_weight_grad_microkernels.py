"""The micro-kernels of the weight gradient against float64 loops."""

import numpy as np
import pytest

from sslnet.kernels.conv.weight_grad_microkernels import pixel_grad_tile, weight_grad_tile

from ..calling import call, close, int64, normal


@pytest.mark.parametrize("sizes", [(1, 2, 3, 1, 1, 1, 1), (2, 1, 3, 2, 1, 1, 0), (1, 1, 2, 1, 2, 0, 2)], ids=str)
def test_weight_grad_tile_reads_nothing_in_the_padding(unit, sizes):
    vectors, lines, taps, step, dilation, left, right = sizes
    images, rows, columns, filters = 2, 3, 6, vectors * unit.lanes
    width = (columns - 1) * step + (taps - 1) * dilation + 1
    x, dy = normal(images, lines, rows, width), normal(images, rows, columns, filters)
    x[..., :left], x[..., width - right :] = np.nan, np.nan
    sums = normal(lines, taps, filters, seed=1)
    expected = sums.astype(np.float64)
    for n, line, row, column, t in np.ndindex(images, lines, rows, columns, taps):
        at = column * step + t * dilation
        if left <= at < width - right:
            expected[line, t] += dy[n, row, column] * np.float64(x[n, line, row, at])
    call(
        weight_grad_tile(unit, *sizes),
        *(dy, images, dy.strides[0], x.strides[0], rows, dy.strides[1], columns, x, x.strides[2]),
        *(np.arange(lines) * x.strides[1], np.arange(lines) * sums.strides[0], sums),
    )
    close(sums, expected)


@pytest.mark.parametrize("columns", [3, 8, 21])
def test_pixel_grad_tile(unit, columns):
    filters, taps, rows, width = 2, 3, 2, 30
    dy, x, offsets = normal(filters, rows, columns), normal(rows + 1, width), int64(0, 5, width + 2)
    sums, bias_sums = normal(filters, 4, seed=1), normal(filters, seed=1)
    expected, bias = sums.astype(np.float64), bias_sums.astype(np.float64)
    flat = x.reshape(-1)
    for f, row, column in np.ndindex(filters, rows, columns):
        bias[f] += dy[f, row, column]
        for t in range(taps):
            expected[f, t] += dy[f, row, column] * np.float64(flat[offsets[t] + row * width + column])
    call(
        pixel_grad_tile(unit, filters=filters, taps=taps),
        *(dy, dy.strides[0], rows, columns, x, x.strides[0], offsets * 4, sums, sums.strides[0], bias_sums),
    )
    close(sums, expected)
    close(bias_sums, bias)
