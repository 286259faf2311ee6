"""Normalisation kernels against float64 formulas, for rows below and above a vector, and nothing written outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.kernels.pointwise.batch_norm import Normalization
from sslnet.kernels.runtime import jit
from sslnet.kernels.runtime.threads import set_num_threads

from ..conv_oracle import ALL_UNITS, assert_guards_untouched, guarded, inside_guards

EPS = 1e-5


@pytest.fixture(autouse=True)
def two_threads():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "SMALL", 0)
        set_num_threads(2)
        yield
        set_num_threads(None)


def operands(shape, seed, mean=0.0):
    random = np.random.default_rng(seed)
    x, dy = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
    gamma, beta, through = random.standard_normal((3, shape[1])).astype(np.float32)
    return inside_guards(x + np.float32(mean)), dy, gamma, beta, through


def along(v):
    return v[:, None]


shapes = st.tuples(
    st.integers(1, 6), st.integers(1, 4), st.one_of(st.integers(1, 20), st.sampled_from([49, 64, 130, 5000]))
)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 99), st.booleans(), st.booleans(), st.sampled_from(ALL_UNITS))
def test_forward_equals_the_formula(shape, seed, relu, in_place, unit):
    x, _, gamma, beta, _ = operands(shape, seed)
    exact = x.astype(np.float64)
    mean, variance = exact.mean((0, 2)), exact.var((0, 2))
    expected = along(gamma) * (exact - along(mean)) / along(np.sqrt(variance + EPS)) + along(beta)
    expected = np.maximum(expected, 0) if relu else expected
    y, whole = guarded(shape)
    if in_place:
        y[:] = x
        x = y
    table = np.zeros((shape[1], 4))
    kernels = Normalization(shape, unit)
    given_x = x.copy()
    kernels.normalize(x, y, table, gamma, beta, EPS, relu)
    np.testing.assert_allclose(table[:, 0], mean, atol=1e-6)
    np.testing.assert_allclose(table[:, 1], variance, atol=1e-5)
    # A channel of one value has a variance of 0, and 1 / sqrt(eps) makes rounding errors large.
    np.testing.assert_allclose(y, expected, atol=1e-3 if shape[0] * shape[2] < 3 else 1e-4)
    again = np.empty(shape, np.float32)
    kernels.apply(given_x, again, table, gamma, beta, relu)
    np.testing.assert_array_equal(again, y)
    assert_guards_untouched(whole)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 99), st.booleans(), st.booleans(), st.booleans(), st.sampled_from(ALL_UNITS))
def test_gradient_equals_the_formula(shape, seed, relu, fixed, in_place, unit):
    x, dy, gamma, beta, through = operands(shape, seed)
    exact = x.astype(np.float64)
    kernels, table = Normalization(shape, unit), np.zeros((shape[1], 4))
    y = np.empty(shape, np.float32)
    kernels.normalize(x, y, table, gamma, beta, 0.1, relu)
    inverse = 1 / np.sqrt(exact.var((0, 2)) + 0.1)
    normal = (exact - along(exact.mean((0, 2)))) * along(inverse)
    dz = np.where(y > 0, dy, 0) if relu else dy
    dz = dz.astype(np.float64)
    centred = dz if fixed else dz - along(dz.mean((0, 2))) - normal * along((dz * normal).mean((0, 2)))
    dx, whole = guarded(shape)
    above, above_whole = guarded(shape)
    above[:] = dy
    if in_place:
        dx, whole = above, above_whole
    sums = np.full((shape[1], 2), np.nan)
    kernels.gradient(x, above, dx, table, gamma, beta, through, relu, fixed, sums)
    size = max(1, shape[0] * shape[2]) ** 0.5
    np.testing.assert_allclose(sums, np.stack([(dz * normal).sum((0, 2)), dz.sum((0, 2))], 1), atol=2e-5 * size)
    np.testing.assert_allclose(dx, along(gamma * inverse) * centred, atol=1e-4)
    if not in_place:
        np.testing.assert_allclose(above, along(through) * dz, atol=1e-5)
    assert_guards_untouched(whole, above_whole)


def test_a_large_mean_costs_no_digits():
    x, _, gamma, beta, _ = operands((8, 2, 900), 1, mean=3000)
    table, y = np.zeros((2, 4)), np.empty(x.shape, np.float32)
    Normalization(x.shape).normalize(x, y, table, gamma, beta, EPS, False)
    np.testing.assert_allclose(table[:, 1], x.astype(np.float64).var((0, 2)), rtol=1e-5)


def test_not_a_number_shows_in_its_channel_alone():
    x, dy, gamma, beta, through = operands((3, 3, 50), 2)
    x[1, 1, 7] = np.nan
    table, y, sums = np.zeros((3, 4)), np.empty(x.shape, np.float32), np.zeros((3, 2))
    kernels = Normalization(x.shape)
    kernels.normalize(x, y, table, gamma, beta, EPS, True)
    kernels.gradient(x, dy, dy, table, gamma, beta, through, True, False, sums)
    for result in (y, dy):
        assert np.isnan(result[:, 1]).all()
        assert not np.isnan(result[:, [0, 2]]).any()


def test_results_do_not_depend_on_the_number_of_threads():
    x, dy, gamma, beta, through = operands((4, 7, 100), 3)
    results = []
    for threads in (1, 2, 5):
        set_num_threads(threads)
        table, y, sums, dx = np.zeros((7, 4)), np.empty(x.shape, np.float32), np.zeros((7, 2)), dy.copy()
        kernels = Normalization(x.shape)
        kernels.normalize(x, y, table, gamma, beta, EPS, True)
        kernels.gradient(x, dx, dx, table, gamma, beta, through, True, False, sums)
        results.append([array.tobytes() for array in (table, y, dx, sums)])
    assert results[0] == results[1] == results[2]
