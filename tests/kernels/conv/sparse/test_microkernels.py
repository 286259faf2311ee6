"""The micro-kernels of convolutions with zeros against float64 loops."""

import numpy as np
import pytest

from sslnet.kernels.conv.sparse.microkernels import dot_tile, kept_tile, panel_tile, sparse_tile

from ...calling import call, canaries, close, int64, normal


@pytest.mark.parametrize("some", [0, 3], ids=["all filters", "some filters"])
@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("sizes", [(1, 3, 1, 3, 1, 1, 5), (2, 2, 2, 1, 1, 0, 3)], ids=str)
def test_kept_tile(unit, sizes, relu, some):
    vectors, pixels, step, taps, spacing, low, high = sizes
    filters = vectors * unit.lanes
    left = filters - some
    spans = np.array([(0, 2), (2, 0), (2, 3)][:taps] if taps > 1 else [(1, 4)], np.int64)
    x, weights, bias = normal(90), normal(vectors, 5, unit.lanes), normal(filters)
    offsets = np.random.default_rng(0).integers(0, 60, 5)
    targets = np.random.default_rng(1).permutation(filters) * (pixels + 1)
    y = canaries(filters * (pixels + 1))
    expected = y.astype(np.float64)
    for f, p in np.ndindex(left, pixels):
        value = np.float64(bias[f])
        for t in range(taps):
            if low <= p * step + t * spacing < high:
                for k in range(spans[t, 0], spans[t].sum()):
                    value += weights[f // unit.lanes, k, f % unit.lanes] * np.float64(x[offsets[k] + p * step])
        expected[targets[f] + p] = max(value, 0) if relu else value
    call(
        kept_tile(unit, *sizes),
        *(weights, weights.strides[0], offsets * 4, spans, x, bias, targets * 4, y, left, relu, x, 64, y, 64),
    )
    close(y, expected)


@pytest.mark.parametrize("left", [3, 2])
@pytest.mark.parametrize("relu", [0, 1])
def test_panel_tile(unit, left, relu):
    filters, vectors, taps = 3, 2, 5
    for last in (unit.lanes, 1):
        weights, col, bias = normal(taps, filters), normal(taps, vectors * unit.lanes), normal(filters)
        targets, y = int64(2, 0, 1) * 40, canaries(3, 40)
        pixels = (vectors - 1) * unit.lanes + last
        expected = y.astype(np.float64)
        for f in range(left):
            value = bias[f] + weights[:, f].astype(np.float64) @ col[:, :pixels]
            expected[targets[f] // 40, :pixels] = np.maximum(value, 0) if relu else value
        call(
            panel_tile(unit, filters=filters, vectors=vectors),
            *(weights, taps, col, col.strides[0], bias, targets * 4, y, left, last, relu),
        )
        close(y, expected)


@pytest.mark.parametrize("count", [0, 6])
@pytest.mark.parametrize("relu", [0, 1])
def test_sparse_tile(unit, count, relu):
    vectors = 3
    for last in (unit.lanes, 3):
        pixels = (vectors - 1) * unit.lanes + last
        values, x, bias, y = normal(6), normal(120), normal(1), canaries(vectors * unit.lanes)
        offsets = np.random.default_rng(0).integers(0, 90, 6)
        total = np.full(pixels, bias[0], np.float64)
        for i in range(count):
            total += values[i] * x[offsets[i] : offsets[i] + pixels].astype(np.float64)
        expected = y.astype(np.float64)
        expected[:pixels] = np.maximum(total, 0) if relu else total
        call(sparse_tile(unit, vectors=vectors), values, offsets * 4, count, x, bias, y, last, relu)
        close(y, expected)


def test_dot_tile(unit):
    filters, taps, vectors = 3, 2, 4
    dy, col = normal(filters, vectors * unit.lanes), normal(taps, vectors * unit.lanes)
    sums = normal(filters, 5, seed=1)
    expected = sums.astype(np.float64)
    expected[:, :taps] += dy.astype(np.float64) @ col.T
    call(
        dot_tile(unit, filters=filters, taps=taps),
        *(dy, dy.strides[0], col, col.strides[0], vectors, sums, sums.strides[0]),
    )
    close(sums, expected)
