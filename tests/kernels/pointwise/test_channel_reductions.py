"""Sums by channel, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet.kernels.pointwise.channel_reductions import channel_moments, channel_sums

SHAPES = [(3, 4, 7), (5, 6, 1), (1, 2, 1000), (1, 1, 1), (64, 3, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_channel_sums_are_those_of_each_channel(shape, dtype):
    random = np.random.default_rng(1)
    g, x = random.standard_normal((2, *shape)).astype(dtype)
    shift = random.standard_normal(shape[1]).astype(dtype)
    total, dot = np.full((2, shape[1]), np.nan)
    for c in range(shape[1]):  # in the smallest parts
        channel_sums(c, c + 1, 0, g, x, shift, total, dot)
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(total, g.sum(axis=(0, 2), dtype=np.float64), atol=tolerance)
    expected = (g.astype(np.float64) * (x - shift[:, None])).sum(axis=(0, 2))
    np.testing.assert_allclose(dot, expected, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", [0, 1e4])
def test_channel_moments_survive_a_large_mean(shape, dtype, level):
    x = (np.random.default_rng(2).standard_normal(shape) + level).astype(dtype)
    mean, variance = np.full((2, shape[1]), np.nan)
    channel_moments(0, shape[1], 0, x, mean, variance)
    double = x.astype(np.float64)
    np.testing.assert_allclose(mean, double.mean(axis=(0, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, double.var(axis=(0, 2)), rtol=2e-4, atol=1e-12)


def test_channel_moments_of_equal_values_have_no_variance():
    x = np.full((4, 1, 9), 0.1, np.float32)
    mean, variance = np.full((2, 1), np.nan)
    channel_moments(0, 1, 0, x, mean, variance)
    assert variance[0] < 1e-16
