"""The micro-kernels of dense convolutions against float64 loops."""

import numpy as np
import pytest

from sslnet.kernels.conv.microkernels import filter_tile, line_pixels, line_tile, pixel_tile

from ..calling import call, canaries, close, normal


@pytest.mark.parametrize("started", [True, False], ids=["from start", "going on"])
@pytest.mark.parametrize("sizes", [(2, 1, 3, 1), (1, 2, 2, 2)], ids=str)
def test_filter_tile(unit, sizes, started):
    vectors, rows, pixels, step = sizes
    taps, filters, row = 7, vectors * unit.lanes, 40
    x, weights, start = normal(200), normal(taps, filters), normal(filters)
    offsets = np.random.default_rng(0).integers(0, 60, taps)
    sums = normal(rows * pixels, filters, seed=1)
    expected = np.tile(start.astype(np.float64), (rows * pixels, 1)) if started else sums.astype(np.float64)
    for r in range(rows):
        for p in range(pixels):
            for t in range(taps):
                expected[r * pixels + p] += weights[t] * np.float64(x[offsets[t] + r * row + p * step])
    tile = filter_tile(unit, vectors=vectors, rows=rows, pixels=pixels, step=step)
    call(tile, weights, offsets * 4, taps, x, row * 4, sums, start if started else 0)
    close(sums, expected)


@pytest.mark.parametrize("started", [True, False], ids=["from start", "going on"])
@pytest.mark.parametrize("sizes", [(1, 3, 1, 3, 1, 1, 4), (2, 2, 2, 3, 2, 0, 7)], ids=str)
def test_line_tile_reads_nothing_in_the_padding(unit, sizes, started):
    vectors, pixels, step, taps, spacing, low, high = sizes
    lines, filters, width = 3, vectors * unit.lanes, 12
    x = np.full((lines, width), np.nan, np.float32)
    x[:, low:high] = normal(lines, high - low)
    weights, start = normal(lines, taps, filters), normal(filters)
    offsets = np.repeat(np.arange(lines) * width * 4, taps)
    sums = normal(pixels, filters, seed=1)
    expected = np.tile(start.astype(np.float64), (pixels, 1)) if started else sums.astype(np.float64)
    for line in range(lines):
        for p in range(pixels):
            for t in range(taps):
                i = p * step + t * spacing
                if low <= i < high:
                    expected[p] += weights[line, t] * np.float64(x[line, i])
    call(line_tile(unit, *sizes), weights, offsets, lines * taps, x, 0, sums, start if started else 0)
    close(sums, expected)


def test_sums_and_weights_of_a_line_tile_fit_the_registers(unit):
    for vectors, taps in ((1, 1), (2, 3), (3, 1)):
        assert vectors * (line_pixels(unit, vectors, taps) + taps) < unit.registers + 1


@pytest.mark.parametrize("left", [3, 2], ids=["all filters", "some filters"])
@pytest.mark.parametrize("relu", [0, 1])
def test_pixel_tile(unit, left, relu):
    filters, vectors, taps = 3, 2, 5
    x, weights, bias = normal(120), normal(taps, filters), normal(filters)
    offsets = np.random.default_rng(0).integers(0, 50, taps)
    for counts in ((unit.lanes, unit.lanes), (unit.lanes, 1)):
        places = np.array([(3, 0, counts[0]), (20, unit.lanes, counts[1])])
        y = canaries(filters, 2 * unit.lanes + 5)
        expected = y.astype(np.float64)
        for f in range(left):
            for source, target, count in places:
                for i in range(count):
                    value = bias[f] + sum(weights[t, f] * np.float64(x[offsets[t] + source + i]) for t in range(taps))
                    expected[f, target + i] = max(value, 0) if relu else value
        call(
            pixel_tile(unit, filters=filters, vectors=vectors),
            *(weights, offsets * 4, taps, x, places * [4, 4, 1], y, y.strides[0], bias, left, relu),
        )
        close(y, expected)
