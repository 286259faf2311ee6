"""Rows of the lowered matrix, and back, against loops."""

import numpy as np
import pytest

from sslnet.kernels.conv.sparse.lowering import add_taps, copy_rows, fill_row, lower_same, lower_taps

from ...calling import call, canaries, close, normal
from ...conv_oracle import inside_guards

CHANNELS, HEIGHT, WIDTH = 2, 6, 13
TAPS = [(0, -1, -1), (1, 0, 0), (1, 1, 2), (0, -3, -1)]
"""Channel, and row and column that meet the first output pixel."""


def table():
    return np.array([(channel * HEIGHT * WIDTH * 4, row, column) for channel, row, column in TAPS], np.int64)


def meetings(top, rows, columns, row_step, step):
    """(tap, output pixel, place in the source) of every tap that meets no padding."""
    for tap, (channel, first, column) in enumerate(TAPS):
        for r, c in np.ndindex(rows, columns):
            place = channel, first + (top + r) * row_step, column + c * step
            if 0 <= place[1] < HEIGHT and 0 <= place[2] < WIDTH:
                yield tap, r * columns + c, place


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("columns", [3, 12])
def test_lower_taps(unit, step, columns):
    top, rows, row_step = 1, 3, 2
    source = inside_guards(normal(CHANNELS, HEIGHT, WIDTH))
    col = canaries(len(TAPS), rows * columns + 2 * unit.lanes)
    expected = col.copy()
    expected[:, : rows * columns + unit.lanes] = 0
    for tap, pixel, place in meetings(top, rows, columns, row_step, step):
        expected[tap, pixel] = source[place]
    call(
        lower_taps(unit, step),
        *(source, table(), len(TAPS), HEIGHT, WIDTH, top, rows, columns, row_step, col, col.strides[0]),
    )
    close(col, expected)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("columns", [3, 12])
def test_add_taps(unit, step, columns):
    top, rows, row_step = 1, 3, 1
    target = inside_guards(normal(CHANNELS, HEIGHT, WIDTH))
    col = normal(len(TAPS), rows * columns + 2 * unit.lanes)
    expected = target.astype(np.float64)
    for tap, pixel, place in meetings(top, rows, columns, row_step, step):
        expected[place] += col[tap, pixel]
    call(
        add_taps(unit, step),
        *(target, table(), len(TAPS), HEIGHT, WIDTH, top, rows, columns, row_step, col, col.strides[0]),
    )
    close(target, expected)


@pytest.mark.parametrize("vectors", [1, 6])
def test_lower_same(unit, vectors):
    taps, pixels, bits = 3, vectors * unit.lanes, max(unit.lanes, 8)
    source = normal(pixels + 20)
    met = np.random.default_rng(0).random((taps, vectors, unit.lanes)) < 0.7
    flags = np.zeros((taps, vectors, bits), bool)
    flags[..., : unit.lanes] = met
    masks = np.packbits(flags.reshape(taps, -1), axis=1, bitorder="little")
    shifts = np.array([0, 7, 20])
    entries = np.stack([shifts * 4, np.arange(taps) * masks.strides[0]], axis=1)
    col = canaries(taps, pixels)
    expected = [np.where(met[t].ravel(), source[shifts[t] : shifts[t] + pixels], 0) for t in range(taps)]
    call(lower_same(unit), source, entries, taps, vectors, masks, col, col.strides[0])
    close(col, expected)


@pytest.mark.parametrize("columns", [3, 8, 13])
def test_copy_rows(unit, columns):
    source, target = normal(3, 30), canaries(3, 20)
    expected = target.copy()
    expected[:, :columns] = source[:, :columns]
    call(copy_rows(unit), source, source.strides[0], 3, columns, target, target.strides[0])
    close(target, expected)


@pytest.mark.parametrize("count", [0, 3, 8, 21])
@pytest.mark.parametrize("relu", [0, 1])
def test_fill_row(unit, count, relu):
    target, value = canaries(30), np.array([-1.5], np.float32)
    expected = target.copy()
    expected[:count] = 0 if relu else -1.5
    call(fill_row(unit), value, target, count, relu)
    close(target, expected)
