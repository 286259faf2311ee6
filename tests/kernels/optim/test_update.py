"""Update kernels: a step worked out by hand for each rule, then the formulas in float64 over many elements and threads."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet.kernels.optim import update as kernels
from sslnet.kernels.runtime.denormals import flush_denormals, restore_denormals
from sslnet.kernels.runtime.jit import spread
from sslnet.kernels.runtime.threads import set_num_threads

COUNT = 300_001
NO_MEAN = (np.empty(0), 0.0)
NOTHING = (*NO_MEAN, 1.0, 0.0, 0.0)
"""mean, memory, scale, l2, l1 of a gradient that is taken as it is."""


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"], autouse=True)
def threads(request: pytest.FixtureRequest):
    set_num_threads(request.param)
    yield
    set_num_threads(None)


def one(*values: float) -> list[np.ndarray]:
    return [np.array([value], np.float64) for value in values]


def test_sgd_by_hand() -> None:
    """h = 0.5 * 2 + 0.1 * (0.5 * 4 + 0.25 * 8 + 3) = 1.7"""
    w, grad, h = one(8, 4, 2)
    kernels.momentum(0, 1, 0, w, grad, h, *NO_MEAN, 0.5, 0.25, 3.0, 0.1, 0.5, False, True, 0.0)
    assert (w[0], h[0]) == pytest.approx((6.3, 1.7))


def test_l1_decay_pulls_towards_zero_from_both_sides_and_leaves_zero() -> None:
    w, grad, h = np.array([2.0, -2.0, 0.0]), np.zeros(3), np.zeros(3)
    kernels.momentum(0, 3, 0, w, grad, h, *NO_MEAN, 1.0, 0.0, 0.5, 1.0, 0.0, False, True, 0.0)
    assert w.tolist() == [1.5, -1.5, 0.0]


def test_nesterov_by_hand() -> None:
    """h' = 0.5 * 2 + 0.1 * 4 = 1.4; w -= 1.5 * 1.4 - 0.5 * 2 = 1.1"""
    w, grad, h = one(8, 4, 2)
    kernels.momentum(0, 1, 0, w, grad, h, *NOTHING, 0.1, 0.5, True, True, 0.0)
    assert (w[0], h[0]) == pytest.approx((6.9, 1.4))


def test_adagrad_by_hand() -> None:
    """square = 9 + 16 = 25; w -= 0.5 * 4 / (5 + 3)"""
    w, grad, square = one(1, 4, 9)
    kernels.adagrad(0, 1, 0, w, grad, square, *NOTHING, 0.5, 3.0, True)
    assert (w[0], square[0], grad[0]) == pytest.approx((0.75, 25, 0.5 / 8))


def test_rmsprop_by_hand() -> None:
    """square = 0.75 * 12 + 0.25 * 16 = 13; w -= 0.5 * 4 / (sqrt(13) + 1)"""
    w, grad, square = one(1, 4, 12)
    kernels.rmsprop(0, 1, 0, w, grad, square, *NOTHING, 0.5, 0.75, 1.0, False)
    assert (w[0], square[0], grad[0]) == pytest.approx((1 - 2 / (13**0.5 + 1), 13, 4))


def test_adadelta_by_hand() -> None:
    """square = 0.5 * 2 + 0.5 * 16 = 9; u = 4 * sqrt((3 + 1) / (9 + 1)); travel = 0.5 * 3 + 0.5 * 6.4 = 4.7; w -= 2 * u"""
    w, grad, square, travel = one(1, 4, 2, 3)
    kernels.adadelta(0, 1, 0, w, grad, square, travel, *NOTHING, 2.0, 0.5, 1.0, True)
    ratio = 0.4**0.5
    assert (w[0], square[0], travel[0], grad[0]) == pytest.approx((1 - 8 * ratio, 9, 4.7, 2 * ratio))


def test_adam_by_hand() -> None:
    """First step: mean = 0.1 * 4, square = 0.01 * 16, corrected by sqrt(0.01) / 0.1 = 1; w -= 0.5 * 0.4 / (0.4 + 0.1)"""
    w, grad, mean, square = one(1, 4, 0, 0)
    kernels.adam(0, 1, 0, w, grad, mean, square, *NOTHING, 0.5, 0.9, 0.99, 0.1, 0.9, 0.99, 0.0, 0.0, True)
    assert (w[0], mean[0], square[0], grad[0]) == pytest.approx((0.6, 0.4, 0.16, 0.5 / 0.5 * 0.1))


def test_regularise_weighs_the_decay_of_each_element() -> None:
    w, grad = np.array([2.0, -4.0]), np.array([1.0, 1.0])
    kernels.regularise(0, 2, 0, w, grad, 0.5, 0.25, 1.0, np.array([1.0, 3.0]))
    assert grad.tolist() == [0.5 + 0.5 + 1, 0.5 + 3 * (-1 - 1)]


def test_kernels_do_every_element_once_and_alike() -> None:
    """A large array, split over threads: the formula in float64."""
    random = np.random.default_rng(0)
    w, grad, h = (random.standard_normal(COUNT).astype(np.float32) for _ in range(3))
    g = 0.5 * grad.astype(np.float64) + 0.01 * w + 0.02 * np.sign(w)
    new_h = 0.9 * h + 0.1 * g
    new_w = w - new_h
    mean = (np.empty(0, np.float32), 0.0)
    spread(kernels.momentum, COUNT, 1, w, grad, h, *mean, 0.5, 0.01, 0.02, 0.1, 0.9, False, True, 0.0)
    np.testing.assert_allclose(h, new_h, atol=1e-6)
    np.testing.assert_allclose(w, new_w, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_prox_of_single_weights_is_soft_thresholding(nesterov: bool) -> None:
    random = np.random.default_rng(0)
    w, grad, h = (random.standard_normal(COUNT) for _ in range(3))
    start = w + 0.9 * h if nesterov else w
    point = start - (0.9 * h + 0.1 * grad)
    expected = np.sign(point) * np.maximum(np.abs(point) - 0.5, 0)
    new_h = start - expected
    spread(kernels.momentum, COUNT, 1, w, grad, h, *NOTHING, 0.1, 0.9, nesterov, True, 0.5)
    assert (expected == 0).any()
    np.testing.assert_allclose(h, new_h, atol=1e-12)
    np.testing.assert_allclose(w, expected - 0.9 * new_h if nesterov else expected, atol=1e-12)


RULES = {
    kernels.adagrad: (1, (0.1, 1e-3, False)),
    kernels.rmsprop: (1, (0.1, 0.9, 1e-3, False)),
    kernels.adadelta: (2, (0.1, 0.9, 1e-3, False)),
    kernels.adam: (2, (0.1, 0.9, 0.99, 1e-3, 0.9, 0.99, 0.0, 0.0, False)),
    kernels.momentum: (1, (0.1, 0.9, False, True, 0.0)),
}


@pytest.mark.parametrize("kernel", RULES, ids=lambda kernel: kernel.py_func.__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_at_zero_follow_the_mean_with_every_rule(kernel, dtype: str) -> None:
    """The same as calm first and the rule on what it leaves."""
    history, settings = RULES[kernel]
    random = np.random.default_rng(0)
    w, grad, mean = (random.standard_normal(5000).astype(dtype) for _ in range(3))
    w[::3] = 0
    states = [np.abs(random.standard_normal(5000)).astype(dtype) for _ in range(history)]
    expected = [array.copy() for array in (w, grad, *states, mean)]
    kernels.calm(0, 5000, 0, expected[0], expected[1], expected[-1], 0.75)
    np.testing.assert_allclose(expected[-1], 0.75 * mean + 0.25 * grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(expected[1] == grad, w != 0)
    kernel(0, 5000, 0, *expected[:-1], np.empty(0, dtype), 0.0, 0.5, 0.1, 0.2, *settings)
    spread(kernel, 5000, 100, w, grad, *states, mean, 0.75, 0.5, 0.1, 0.2, *settings)
    for array, other in zip((w, *states, mean), (expected[0], *expected[2:])):
        np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-6)


def test_decay_apart_from_the_gradient_by_hand() -> None:
    """mean 0, square 0, no gradient: w = 2 - (0.25 * 2 + 0.125)"""
    w, grad, first, second = one(2, 0, 0, 0)
    kernels.adam(0, 1, 0, w, grad, first, second, *NOTHING, 0.5, 0.9, 0.99, 0.1, 0.9, 0.99, 0.25, 0.125, False)
    assert w[0] == pytest.approx(1.375)


def test_square_sums_do_not_depend_on_the_split() -> None:
    x = np.random.default_rng(0).standard_normal(COUNT).astype(np.float32)
    blocks = -(-COUNT // kernels.SUM_BLOCK)
    whole, split = np.empty(blocks), np.empty(blocks)
    kernels.square_sums(0, blocks, 0, x, whole)
    for k in range(blocks):
        kernels.square_sums(k, k + 1, 0, x, split)
    np.testing.assert_array_equal(whole, split)
    assert whole.sum() == pytest.approx(float((x.astype(np.float64) ** 2).sum()), rel=1e-6)


def test_cut_zeroes_what_is_below_the_threshold() -> None:
    w = np.array([1e-5, -1e-5, 1e-3, -1e-3, np.nan], np.float32)
    kernels.cut(0, 5, 0, w, 1e-4)
    np.testing.assert_array_equal(w, np.array([0, 0, 1e-3, -1e-3, np.nan], np.float32))


def test_momentum_of_a_zero_weight_ends_at_zero_not_in_denormals() -> None:
    """0.9 ** 829 is the last normal number; behind it every operation would take ten times as long."""
    w, grad, h = np.zeros(100, np.float32), np.zeros(100, np.float32), np.full(100, 1e-36, np.float32)
    for _ in range(200):
        w[:] = 0
        spread(kernels.momentum, 100, 1, w, grad, h, np.empty(0, np.float32), *NOTHING[1:], 0.1, 0.9, False, True, 0.0)
    assert not h.any()


def test_denormals_are_kept_outside_of_kernels() -> None:
    setting = flush_denormals()
    restore_denormals(setting)
    spread(kernels.cut, 1, 1, np.ones(1, np.float32), 0.5)
    tiny = np.full(4, 1e-39, np.float32)
    assert (tiny * np.float32(0.5)).any()
