"""Packing through square transposes against loops."""

import numpy as np
import pytest

from sslnet.kernels.conv.transposes import add_rows, add_transposed, load_transposed, scatter_transposed, store_tile

from ..calling import call, canaries, close, int64, normal


def up(count, lanes):
    return -(-count // lanes) * lanes


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("pixels", [3, 8, 13])
def test_store_tile(unit, pixels, relu):
    vectors, filters = 2, 2 * unit.lanes - 1
    sums = normal(up(pixels, unit.lanes), vectors * unit.lanes)
    y = canaries(vectors * unit.lanes, pixels + 2)
    expected = y.copy()
    expected[:filters, :pixels] = (np.maximum(sums, 0) if relu else sums)[:pixels, :filters].T
    call(store_tile(unit), sums, vectors, pixels, y, y.strides[0], filters, relu)
    close(y, expected)


@pytest.mark.parametrize("filters", [3, 8, 10])
def test_load_transposed(unit, filters):
    pixels, padded = 11, up(10, unit.lanes)
    dy, target = normal(filters, 15), canaries(up(pixels, unit.lanes), padded)
    expected = np.zeros_like(target)
    expected[:pixels, :filters] = dy[:, :pixels].T
    call(load_transposed(unit), dy, dy.strides[0], filters, pixels, target, padded)
    close(target, expected)


@pytest.mark.parametrize("columns", [1, 5, 11])
def test_scatter_transposed(unit, columns):
    rows = unit.lanes - 1
    source, target = normal(rows, 14), canaries(columns + 1, unit.lanes)
    places = np.random.default_rng(0).permutation(columns + 1)[:columns].astype(np.int64)
    places[0] = -1
    expected = target.copy()
    for column in range(1, columns):
        expected[places[column]] = 0
        expected[places[column], :rows] = source[:, column]
    call(scatter_transposed(unit), source, source.strides[0], rows, columns, places, target, target.strides[0])
    close(target, expected)


def test_scatter_transposed_of_one_column_without_gaps(unit):
    source, target = normal(unit.lanes), canaries(3, unit.lanes)
    expected = target.copy()
    expected[2] = 0
    expected[2, :3] = source[:3]
    call(scatter_transposed(unit), source, 4, 3, 1, int64(2), target, target.strides[0])
    close(target, expected)


@pytest.mark.parametrize("pixels", [0, 1, 3, 4, 6, 12, 15])
def test_add_rows(unit, pixels):
    padded = 2 * unit.lanes
    source, sums = normal(16, padded), normal(padded, seed=1)
    expected = sums + source[:pixels].astype(np.float64).sum(0)
    call(add_rows(unit), source, pixels, padded, sums)
    close(sums, expected)


@pytest.mark.parametrize("overwrite", [0, 1])
@pytest.mark.parametrize("taps", [3, 9])
def test_add_transposed(unit, taps, overwrite):
    threads, filters = 3, unit.lanes - 1
    sums = normal(threads, up(taps, unit.lanes), unit.lanes)
    dw = normal(unit.lanes, taps, seed=1)
    expected = dw.astype(np.float64)
    expected[:filters] *= 1 - overwrite
    expected[:filters] += sums.astype(np.float64).sum(0)[:taps, :filters].T
    call(add_transposed(unit), sums, sums.strides[0], threads, sums.strides[1], dw, filters, taps, overwrite)
    close(dw, expected)
