"""exp, tanh, sigmoid and log1p inside kernels, against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslnet.kernels.elementary import exp, log1p, sigmoid, tanh
from sslnet.kernels.jit import kernel


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
def _log1p(x, y):
    for i in range(x.size):
        y[i] = log1p(x[i])


FUNCTIONS = {
    "exp": (_exp, np.exp),
    "tanh": (_tanh, np.tanh),
    "sigmoid": (_sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "log1p": (_log1p, lambda x: np.log1p(x)),
}


def apply(name: str, values: np.ndarray) -> np.ndarray:
    result = np.empty_like(values)
    FUNCTIONS[name][0](values, result)
    return result


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_is_within_three_units_of_the_last_place(name):
    random = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-87, 88, 100_001), random.standard_normal(100_000), [1e-30, -1e-6, 0.625, -0.625]])
    x = (np.abs(x) if name == "log1p" else x).astype(np.float32)
    expected = FUNCTIONS[name][1](x.astype(np.float64))
    usual = np.abs(expected) > np.finfo(np.float32).tiny
    error = np.abs(apply(name, x) - expected)[usual] / np.spacing(np.abs(expected[usual]).astype(np.float32))
    assert error.max() < 3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_in_double_precision_is_exact(name):
    x = np.linspace(0 if name == "log1p" else -20, 20, 1001)
    np.testing.assert_allclose(apply(name, x), FUNCTIONS[name][1](x), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementary_at_the_ends_of_the_numbers(dtype):
    x = np.array([-math.inf, -1e30, 1e30, math.inf, math.nan], dtype)
    np.testing.assert_array_equal(apply("exp", x), np.array([0, 0, math.inf, math.inf, math.nan], dtype))
    np.testing.assert_array_equal(apply("tanh", x), np.array([-1, -1, 1, 1, math.nan], dtype))
    np.testing.assert_allclose(apply("sigmoid", x), np.array([0, 0, 1, 1, math.nan], dtype), atol=1e-38)
    np.testing.assert_array_equal(apply("log1p", x[3:]), x[3:])
    np.testing.assert_allclose(apply("log1p", x[2:3]), math.log(1e30), rtol=1e-6)


def test_exp_of_single_precision_reaches_denormals_and_infinity():
    x = np.array([-103, -88, 88.7, 88.8], np.float32)
    np.testing.assert_allclose(apply("exp", x)[:3], np.exp(x[:3].astype(np.float64)), rtol=1e-6, atol=1.5e-45)
    assert apply("exp", x)[3] == math.inf
