"""Update kernels: a step worked out by hand for each rule, then the formulas in float64 over many elements and threads."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet.kernels import update as kernels
from sslnet.kernels.denormals import flush_denormals, restore_denormals
from sslnet.kernels.jit import spread
from sslnet.kernels.prox import Panels, prox
from sslnet.kernels.threads import parallel, set_num_threads

COUNT = 70_001
NOTHING = (1.0, 0.0, 0.0)
"""scale, l2, l1 of a gradient that is taken as it is."""


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
    kernels.momentum(0, 1, 0, w, grad, h, 0.5, 0.25, 3.0, 0.1, 0.5, False, True)
    assert (w[0], h[0]) == pytest.approx((6.3, 1.7))


def test_l1_decay_pulls_towards_zero_from_both_sides_and_leaves_zero() -> None:
    w, grad, h = np.array([2.0, -2.0, 0.0]), np.zeros(3), np.zeros(3)
    kernels.momentum(0, 3, 0, w, grad, h, 1.0, 0.0, 0.5, 1.0, 0.0, False, True)
    assert w.tolist() == [1.5, -1.5, 0.0]


def test_nesterov_by_hand() -> None:
    """h' = 0.5 * 2 + 0.1 * 4 = 1.4; w -= 1.5 * 1.4 - 0.5 * 2 = 1.1"""
    w, grad, h = one(8, 4, 2)
    kernels.momentum(0, 1, 0, w, grad, h, *NOTHING, 0.1, 0.5, True, True)
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
    kernels.adam(0, 1, 0, w, grad, mean, square, *NOTHING, 0.5, 0.9, 0.99, 0.1, 0.9, 0.99, True)
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
    spread(kernels.momentum, COUNT, 1, w, grad, h, 0.5, 0.01, 0.02, 0.1, 0.9, False, True)
    np.testing.assert_allclose(h, new_h, atol=1e-6)
    np.testing.assert_allclose(w, new_w, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("tile", [(1, 300), (40, 1), (8, 15)])
def test_fused_prox_is_the_update_then_the_prox(tile: tuple[int, int], nesterov: bool) -> None:
    """SGD: w' = prox(w - h'), h' = w - w'. Nesterov: the same from the point looked ahead from, then look ahead."""
    random, shape = np.random.default_rng(1), (40, 300)
    w, grad, h = (random.standard_normal(shape) for _ in range(3))
    expected_h = 0.9 * h + 0.1 * (grad + 0.01 * w)
    start = w + 0.9 * h if nesterov else w
    point = start - expected_h
    threshold = float(np.linalg.norm(point)) * (tile[0] * tile[1] / point.size) ** 0.5  # the norm of a usual group
    panels = Panels.cut(*shape, *tile)
    prox(0, panels.count, 0, point, np.empty((0, 0)), *tile, panels.span, threshold)
    expected_h = start - point
    expected_w = point - 0.9 * expected_h if nesterov else point
    settings = (1.0, 0.01, 0.0, 0.1, 0.9, nesterov, *tile, panels.span, threshold)
    parallel(kernels.momentum_prox, panels.count, w, grad, h, *settings)
    assert (point == 0).any(), "the case must kill a group"
    np.testing.assert_allclose(w, expected_w, atol=1e-12)
    np.testing.assert_allclose(h, expected_h, atol=1e-12)


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


def test_momentum_of_a_dead_weight_ends_at_zero_not_in_denormals() -> None:
    """0.9 ** 829 is the last normal number; behind it every operation would take ten times as long."""
    w, grad, h = np.zeros(100, np.float32), np.zeros(100, np.float32), np.full(100, 1e-36, np.float32)
    for _ in range(200):
        w[:] = 0
        spread(kernels.momentum, 100, 1, w, grad, h, *NOTHING, 0.1, 0.9, False, True)
    assert not h.any()


def test_denormals_are_kept_outside_of_kernels() -> None:
    setting = flush_denormals()
    restore_denormals(setting)
    spread(kernels.cut, 1, 1, np.ones(1, np.float32), 0.5)
    tiny = np.full(4, 1e-39, np.float32)
    assert (tiny * np.float32(0.5)).any()
