"""The micro-kernels of pooling, called directly, against loops over the windows."""

import itertools

import numpy as np
import pytest

from sslnet.kernels.pointwise.pooling_tiles import MAX, MAX_AND_PLACE, SLACK, SUM, WINDOWS, pool_tile, spread_tile

from ..calling import CANARY, call, canaries, normal


@pytest.mark.parametrize("kind", [MAX, MAX_AND_PLACE, SUM])
@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
def test_pool_tile_is_the_loop_over_its_windows(unit, kernel, stride, kind):
    tile = pool_tile(unit, kernel=kernel, stride=stride, kind=kind)
    for rows, across in itertools.product((1, 3), (1, unit.lanes - 1, unit.lanes, 2 * unit.lanes + 3)):
        height, width = (rows - 1) * stride + kernel, (across - 1) * stride + kernel + 2
        values = normal(height * width + SLACK)
        plane = values[: height * width].reshape(height, width)
        y, after = canaries(rows * across + 16), rows * across
        places = np.full(rows * across + 16, -7, np.int32)
        shares = normal(rows * across + 16, seed=1)
        row = 4 * width
        call(tile, values, row, stride * row, rows, across, y, places, width + 1, 5, shares)
        for i, j in itertools.product(range(rows), range(across)):
            window = plane[i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            k = i * across + j
            if kind == SUM:
                np.testing.assert_allclose(y[k], window.sum(dtype=np.float64) * shares[k], rtol=1e-4, atol=1e-6)
                continue
            assert y[k] == window.max()
            if kind == MAX_AND_PLACE:
                a, b = np.unravel_index(window.argmax(), window.shape)
                assert places[k] == (width + 1) * (i * stride + a) + j * stride + b + 5
        assert (y[after:] == CANARY).all() and (places[after:] == -7).all()


@pytest.mark.parametrize(("kernel", "stride"), WINDOWS)
def test_spread_tile_adds_the_windows_that_contain_each_value(unit, kernel, stride):
    tile = spread_tile(unit, kernel=kernel, stride=stride)
    for lines, vectors in itertools.product((1, 2), (1, 3)):
        count = vectors * unit.lanes
        windows = np.zeros((lines, kernel + count), np.float32)
        windows[:, kernel:] = normal(lines, count)
        out = canaries(count * stride + 16)
        call(tile, windows.ravel()[kernel:], 4 * (kernel + count), lines, out, vectors)
        expected = np.zeros((count + kernel) * stride + kernel)
        for line, q in itertools.product(range(lines), range(count)):
            expected[q * stride : q * stride + kernel] += windows[line, kernel + q]
        np.testing.assert_allclose(out[: count * stride], expected[: count * stride], rtol=1e-5, atol=1e-6)
        assert (out[count * stride :] == CANARY).all()
