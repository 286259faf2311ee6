"""Softmax along the middle axis and its gradient, against NumPy in float64; nothing written outside."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet.kernels.pointwise.softmax import softmax, softmax_gradient
from sslnet.kernels.runtime import jit
from sslnet.kernels.runtime.threads import set_num_threads

CANARY = -12345.5


@pytest.fixture(autouse=True)
def two_threads():
    """Even for what is too small to be worth it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "SMALL", 0)
        set_num_threads(2)
        yield
        set_num_threads(None)


def guarded(shape, dtype):
    """An array between canaries, and the whole of it."""
    size = math.prod(shape)
    whole = np.full(size + 26, CANARY, dtype)
    return whole[13 : 13 + size].reshape(shape), whole


def expected_softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(
    outer=st.integers(1, 4),
    classes=st.integers(1, 70),
    inner=st.one_of(st.just(1), st.integers(2, 40), st.integers(250, 530)),
    dtype=st.sampled_from([np.float32, np.float64]),
    level=st.sampled_from([1, 30, 1e4]),
    seed=st.integers(0, 99),
)
def test_softmax_and_its_gradient_are_those_of_the_definition(outer, classes, inner, dtype, level, seed):
    random = np.random.default_rng(seed)
    x = (random.standard_normal((outer, classes, inner)) * level).astype(dtype)
    kept = x.copy()
    y, whole = guarded(x.shape, dtype)
    softmax(x, y)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_allclose(y, expected_softmax(x), rtol=2e-5, atol=1e-7)
    in_place = x.copy()
    softmax(in_place, in_place)
    np.testing.assert_allclose(in_place, y, rtol=1e-5)

    dy = random.standard_normal(x.shape).astype(dtype)
    dx, gradient_whole = guarded(x.shape, dtype)
    softmax_gradient(y, dy, dx)
    exact = y * (dy - (y.astype(np.float64) * dy).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(dx, exact, rtol=1e-4, atol=1e-6)
    softmax_gradient(y, dy, dy)
    np.testing.assert_allclose(dy, dx, rtol=1e-4, atol=1e-6)
    for array in (whole, gradient_whole):
        assert (array[:13] == CANARY).all()
        assert (array[-13:] == CANARY).all()


@pytest.mark.parametrize("shape", [(1, 40, 1), (1, 40, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 17, 39])
def test_softmax_of_what_is_not_a_number_shows(shape, dtype, bad, place):
    x = np.zeros(shape, dtype)
    x[0, place, 0] = bad
    softmax(x, x)
    assert np.isnan(x[0, :, 0]).any()
    np.testing.assert_allclose(x[0, :, 1:], 1 / 40, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_minus_infinity_is_zero(dtype):
    x = np.array([[[-math.inf], [0], [-3e38], [0]]], dtype)
    softmax(x, x)
    np.testing.assert_array_equal(x.reshape(-1), [0, 0.5, 0, 0.5])
