"""exp, tanh, sigmoid, log, softplus and power inside kernels, against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.simd.math import exp, log, power, sigmoid, softplus, tanh


@kernel
def _exp(x, y):
    for i in range(x.size):
        y[i] = exp(x[i])


@kernel
def _tanh(x, y):
    for i in range(x.size):
        y[i] = tanh(x[i])


@kernel
def _sigmoid(x, y):
    for i in range(x.size):
        y[i] = sigmoid(x[i])


@kernel
def _log(x, y):
    for i in range(x.size):
        y[i] = log(x[i])


@kernel
def _softplus(x, y):
    for i in range(x.size):
        y[i] = softplus(x[i])


@kernel
def _power(x, exponent, y):
    for i in range(x.size):
        y[i] = power(x[i], exponent)


FUNCTIONS = {
    "exp": (_exp, np.exp),
    "tanh": (_tanh, np.tanh),
    "sigmoid": (_sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "log": (_log, np.log),
    "softplus": (_softplus, lambda x: np.logaddexp(0, x)),
}


def apply(name: str, values: np.ndarray) -> np.ndarray:
    result = np.empty_like(values)
    FUNCTIONS[name][0](values, result)
    return result


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_is_within_three_units_of_the_last_place(name):
    random = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-87, 88, 100_001), random.standard_normal(100_000), [1e-30, -1e-6, 0.625, -0.625]])
    x = (np.abs(x[x != 0]) if name == "log" else x).astype(np.float32)
    expected = FUNCTIONS[name][1](x.astype(np.float64))
    usual = np.abs(expected) > np.finfo(np.float32).tiny
    error = np.abs(apply(name, x) - expected)[usual] / np.spacing(np.abs(expected[usual]).astype(np.float32))
    assert error.max() < 3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_in_double_precision_is_exact(name):
    x = np.linspace(1e-3 if name == "log" else -20, 20, 1001)
    np.testing.assert_allclose(apply(name, x), FUNCTIONS[name][1](x), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementary_at_the_ends_of_the_numbers(dtype):
    x = np.array([-math.inf, -1e30, 1e30, math.inf, math.nan], dtype)
    np.testing.assert_array_equal(apply("exp", x), np.array([0, 0, math.inf, math.inf, math.nan], dtype))
    np.testing.assert_array_equal(apply("tanh", x), np.array([-1, -1, 1, 1, math.nan], dtype))
    np.testing.assert_allclose(apply("sigmoid", x), np.array([0, 0, 1, 1, math.nan], dtype), atol=1e-38)
    np.testing.assert_array_equal(
        apply("log", x)[[0, 1, 3, 4]], np.array([math.nan, math.nan, math.inf, math.nan], dtype)
    )
    np.testing.assert_allclose(apply("log", x[2:3]), math.log(1e30), rtol=1e-6)
    assert apply("log", np.zeros(1, dtype)) == -math.inf
    np.testing.assert_allclose(apply("softplus", x), np.array([0, 0, 1e30, math.inf, math.nan], dtype), rtol=1e-6)


def test_exp_of_single_precision_ends_with_the_normal_numbers():
    x = np.array([-103, -87.4, -87.33, 88.72, 88.8], np.float32)
    expected = [0, 0, *np.exp(x[2:4].astype(np.float64)), math.inf]
    np.testing.assert_allclose(apply("exp", x), expected, rtol=1e-6, atol=0)


EXPONENTS = [0.75, -0.75, 0.5, 3, -2, 7.3, 0.01, -31]


def raised(x: np.ndarray, exponent: float) -> np.ndarray:
    result = np.empty_like(x)
    _power(x, x.dtype.type(exponent), result)
    return result


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize(("dtype", "units"), [(np.float32, 1), (np.float64, 2)])
def test_power_is_within_a_unit_of_the_last_place(exponent, dtype, units):
    random = np.random.default_rng(0)
    x = np.concatenate(
        [np.exp(random.uniform(-80, 80, 20_000) / max(1, abs(exponent))), random.uniform(0.5, 2, 20_000)]
    ).astype(dtype)
    expected = x.astype(np.float64) ** float(dtype(exponent))
    usual = (expected > np.finfo(dtype).tiny) & (expected < np.finfo(dtype).max)
    error = np.abs(raised(x, exponent) - expected)[usual] / np.spacing(expected[usual].astype(dtype))
    assert error.max() < units


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:divide by zero:RuntimeWarning")
def test_power_of_negative_numbers_zero_and_infinity_is_that_of_numpy(exponent, dtype):
    x = np.array([-3, -1, 0, 1, math.inf, math.nan], dtype)
    np.testing.assert_allclose(raised(x, exponent), x ** dtype(exponent), rtol=1e-6)
