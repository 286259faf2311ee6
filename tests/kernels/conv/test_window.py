"""Planes copied into padded windows, and phases put back together, against loops."""

import numpy as np
import pytest

from sslnet.kernels.conv.window import fetch_ahead, fill_plane, interleave

from ..calling import call, canaries, close, normal


@pytest.mark.parametrize("steps", [(1, 1), (2, 2), (1, 3)], ids=str)
def test_fill_plane(unit, steps):
    step_h, step_w = steps
    height, width, first_row, first_column, rows, columns = 5, 9, -1, -2, 4, 7
    source = normal(height, width)
    target = canaries(step_h * step_w, rows * columns + unit.lanes)
    call(
        fill_plane(unit),
        *(source, height, width, target, target.strides[0], first_row, first_column, step_h, step_w, rows, columns),
    )
    for a, b, row, column in np.ndindex(step_h, step_w, rows, columns):
        at = first_row + row * step_h + a, first_column + column * step_w + b
        inside = 0 <= at[0] < height and 0 <= at[1] < width
        assert target[a * step_w + b, row * columns + column] == (source[at] if inside else 0)


@pytest.mark.parametrize("steps", [(1, 2), (2, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("width", [5, 23])
def test_interleave(unit, steps, width):
    step_h, step_w = steps
    maps, map_rows, first, last, height = 2, 3, 1, 3, 5
    columns = [-(-(width - b) // step_w) for b in range(step_w)] * step_h
    sizes = [maps * map_rows * count + unit.lanes for count in columns]
    starts = np.cumsum([0, *sizes])[:-1]
    planes, target = normal(sum(sizes)), canaries(maps, height, width)
    expected = target.copy()
    for m, row, a, b in np.ndindex(maps, last - first, step_h, step_w):
        k, h = a * step_w + b, (first + row) * step_h + a
        if h < height:
            begin = starts[k] + (m * map_rows + row) * columns[k]
            expected[m, h, b::step_w] = planes[begin : begin + columns[k]]
    places = np.stack([starts, columns], axis=1).astype(np.int64)
    call(interleave(unit), planes, maps, places, map_rows, first, last, target, height, width, step_h, step_w)
    close(target, expected)


def test_fetch_ahead_takes_any_piece_of_memory(unit):
    values = normal(1000)
    before = values.copy()
    call(fetch_ahead(unit), values, values.nbytes)
    call(fetch_ahead(unit), 0, 1 << 12)
    np.testing.assert_array_equal(values, before)
