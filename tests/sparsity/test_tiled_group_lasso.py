"""Penalties: theorems about their prox, and cvxpy as the oracle of sums."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from sslnet.sparsity.group_penalty import Tiling
from sslnet.sparsity.tiled_group_lasso import TiledGroupLasso

ROWS, COLUMNS = 8, 12
STEP = 0.7
CLOSE = 5e-5
"""Of what CLARABEL finds: it ends at a gap of at most 1e-9 here, and sqrt(2 step gap) is how far off it then may be."""
CASES = {
    "rows": [Tiling(1, COLUMNS, 1.0)],
    "columns": [Tiling(ROWS, 1, 1.5)],
    "single weights": [Tiling(1, 1, 0.4)],
    "tiles": [Tiling(4, 3, 1.2)],
    "nested": [Tiling(1, COLUMNS, 0.5), Tiling(ROWS, COLUMNS, 0.4), Tiling(1, 3, 0.4)],
    "rows and columns": [Tiling(1, COLUMNS, 1.4), Tiling(ROWS, 1, 1.3)],
    "rows, columns and single weights": [Tiling(1, COLUMNS, 0.9), Tiling(ROWS, 1, 0.7), Tiling(1, 1, 0.2)],
    "tiles across each other": [Tiling(2, 6, 0.9), Tiling(4, 4, 0.7), Tiling(1, COLUMNS, 0.3)],
}


def matrix(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((ROWS, COLUMNS)) * random.uniform(0.2, 1.6, (ROWS, 1))


def penalty(tilings: list[Tiling], dtype: type = np.float64) -> TiledGroupLasso:
    return TiledGroupLasso((ROWS, COLUMNS), tilings, dtype, tolerance=1e-11 if dtype == np.float64 else 1e-6)


def proxed(tilings: list[Tiling], x: np.ndarray, steps: np.ndarray | float = STEP) -> np.ndarray:
    z = x.copy()
    penalty(tilings).prox([z], [steps])
    return z


def value(tilings: list[Tiling], z: np.ndarray) -> float:
    """The penalty, group by group."""
    return sum(
        t.strength * np.linalg.norm(z[i : i + t.height, j : j + t.width])
        for t in tilings
        for i in range(0, ROWS, t.height)
        for j in range(0, COLUMNS, t.width)
    )


def all_steps() -> np.ndarray:
    return np.random.default_rng(9).uniform(0.2, 1.5, (ROWS, COLUMNS))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("metric", ["plain", "diagonal"])
def test_prox_equals_cvxpy(case: str, metric: str) -> None:
    cp = pytest.importorskip("cvxpy")
    tilings, x = CASES[case], matrix()
    steps = np.full_like(x, STEP) if metric == "plain" else all_steps()
    z = cp.Variable(x.shape)
    norms = [
        t.strength * cp.norm(cp.vec(z[i : i + t.height, j : j + t.width], order="C"))
        for t in tilings
        for i in range(0, ROWS, t.height)
        for j in range(0, COLUMNS, t.width)
    ]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(1 / (2 * steps), cp.square(z - x))) + sum(norms)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says when it did not reach its own, tighter goal
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    mine = proxed(tilings, x, STEP if metric == "plain" else steps)
    assert mine.any()
    np.testing.assert_allclose(mine, z.value, atol=CLOSE)
    assert not mine[np.abs(z.value) < 1e-7].any(), "what is zero at the optimum is exactly zero"


@pytest.mark.parametrize("case", CASES)
def test_prox_minimises_its_objective(case: str) -> None:
    """No other point is better: not the argument, nor zero, nor points around the result."""
    tilings, x, random = CASES[case], matrix(), np.random.default_rng(2)
    z = proxed(tilings, x)

    def objective(point: np.ndarray) -> float:
        return 0.5 * float(((point - x) ** 2).sum()) + STEP * value(tilings, point)

    others = [x, np.zeros_like(x), *(z + scale * random.standard_normal(x.shape) for scale in (1e-3, 1e-2, 0.1) * 20)]
    assert all(objective(z) < objective(other) for other in others)


@pytest.mark.parametrize("case", CASES)
def test_prox_is_nonexpansive(case: str) -> None:
    for seed in range(5):
        x, y = matrix(seed), matrix(seed + 100)
        moved = np.linalg.norm(proxed(CASES[case], x) - proxed(CASES[case], y))
        assert moved <= np.linalg.norm(x - y) * (1 + 1e-9)


@pytest.mark.parametrize("case", CASES)
def test_prox_and_its_dual_make_up_the_argument(case: str) -> None:
    """Moreau: x - prox(x) = step * (a subgradient at prox(x)), for which <u, z> = penalty(z)."""
    tilings, x = CASES[case], matrix()
    z = proxed(tilings, x)
    subgradient = (x - z) / STEP
    assert float((subgradient * z).sum()) == pytest.approx(value(tilings, z), rel=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_group_of_zeros_stays_zero(case: str) -> None:
    x = matrix()
    x[2], x[:, 7] = 0, 0
    z = proxed(CASES[case], x)
    assert not z[2].any()
    assert not z[:, 7].any()


@pytest.mark.parametrize("case", CASES)
def test_prox_of_zeros_is_zero(case: str) -> None:
    assert not proxed(CASES[case], np.zeros((ROWS, COLUMNS))).any()


@pytest.mark.parametrize("case", CASES)
def test_strong_enough_penalty_kills_everything(case: str) -> None:
    tilings = [Tiling(t.height, t.width, 100 * t.strength) for t in CASES[case]]
    assert not proxed(tilings, matrix()).any()
    assert not proxed(tilings, matrix(), all_steps()).any()


def test_groups_of_one_are_soft_thresholding() -> None:
    x = matrix()
    expected = np.sign(x) * np.maximum(0, np.abs(x) - STEP * 0.4)
    np.testing.assert_allclose(proxed(CASES["single weights"], x), expected, atol=1e-15)


def test_sum_is_not_one_shrinkage_after_the_other() -> None:
    """The case would prove nothing if the short cut gave the same."""
    first, second = CASES["rows and columns"]
    one_after_the_other = proxed([second], proxed([first], matrix()))
    assert np.abs(one_after_the_other - proxed([first, second], matrix())).max() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_moved_is_what_was_taken_off(case: str) -> None:
    before = matrix()
    x, moved = before.copy(), np.full_like(before, 0.5)
    penalty(CASES[case]).prox([x], [STEP], [moved])
    np.testing.assert_allclose(moved, 0.5 + before - x, atol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_value_sums_the_norms(case: str) -> None:
    assert penalty(CASES[case]).value([matrix()]) == pytest.approx(value(CASES[case], matrix()), rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_subgradient_is_the_derivative_where_there_is_one(case: str) -> None:
    tilings, x, direction = CASES[case], matrix(), matrix(5)
    grad = np.zeros_like(x)
    penalty(tilings).add_subgradient([x], [grad])
    difference = (value(tilings, x + 1e-6 * direction) - value(tilings, x - 1e-6 * direction)) / 2e-6
    assert float((grad * direction).sum()) == pytest.approx(difference, rel=1e-6)


def test_duals_of_the_last_prox_start_the_next() -> None:
    kept, x = penalty(CASES["rows and columns"], np.float32), matrix().astype(np.float32)
    kept.prox([x.copy()], [STEP])
    first = kept.sweeps
    kept.prox([x.copy()], [STEP])
    assert kept.sweeps < first / 2


def test_nested_tilings_need_no_duals() -> None:
    nested = penalty(CASES["nested"])
    nested.prox([matrix()], [STEP])
    assert nested.nested
    assert not nested.state()


def test_state_makes_the_next_prox_the_same_bit_by_bit() -> None:
    one, other = (penalty(CASES["rows and columns"], np.float32) for _ in range(2))
    x = matrix().astype(np.float32)
    one.prox([x.copy()], [STEP])
    other.set_state(one.state())
    results = []
    for which in (one, other):
        y = x.copy()
        which.prox([y], [STEP])
        results.append(y)
    np.testing.assert_array_equal(*results)


def test_state_of_another_size_is_left_aside() -> None:
    kept = penalty(CASES["rows and columns"])
    kept.set_state([np.ones((3, 3)), np.ones((3, 3))])
    np.testing.assert_allclose(kept_result(kept), proxed(CASES["rows and columns"], matrix()), atol=1e-9)


def kept_result(which: TiledGroupLasso) -> np.ndarray:
    x = matrix()
    which.prox([x], [STEP])
    return x


# -- groups that take along a bias -------------------------------------------------------------------------------------

BIAS_STEPS = {"smaller": 0.3, "equal": STEP, "larger": 1.4}
BIAS_CASES = {
    "rows": [Tiling(1, COLUMNS, 3, bias=True)],
    "columns": [Tiling(ROWS, 1, 3.6, bias=True)],
    "tiles": [Tiling(4, 3, 4, bias=True)],
    "nested": [Tiling(1, COLUMNS, 0.4), Tiling(1, COLUMNS, 0.7, bias=True), Tiling(1, 3, 0.3)],
    "rows and columns": [Tiling(1, COLUMNS, 1.4, bias=True), Tiling(ROWS, 1, 1.3)],
    "rows, the whole and single weights": [
        Tiling(1, COLUMNS, 1.2, bias=True),
        Tiling(ROWS, COLUMNS, 1),
        Tiling(1, 1, 0.2),
    ],
}


def with_bias(tilings: list[Tiling]) -> tuple[np.ndarray, np.ndarray]:
    x, found = matrix(), penalty(tilings)
    return x, np.random.default_rng(8).standard_normal(found.biases)


def solved_by_cvxpy(tilings: list[Tiling], x: np.ndarray, bias: np.ndarray, steps: np.ndarray, bias_steps: np.ndarray):
    cp = pytest.importorskip("cvxpy")
    z, b = cp.Variable(x.shape), cp.Variable(bias.shape)
    norms = []
    for t in tilings:
        corners = [(i, j) for i in range(0, ROWS, t.height) for j in range(0, COLUMNS, t.width)]
        for k, (i, j) in enumerate(corners):
            tile = cp.vec(z[i : i + t.height, j : j + t.width], order="C")
            norms.append(t.strength * cp.norm(cp.hstack([tile, b[k]]) if t.bias else tile))
    distance = cp.sum(cp.multiply(1 / (2 * steps), cp.square(z - x)))
    distance += cp.sum(cp.multiply(1 / (2 * bias_steps), cp.square(b - bias)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says when it did not reach its own, tighter goal
        problem = cp.Problem(cp.Minimize(distance + sum(norms)))
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return z.value, b.value


def assert_solved(x: np.ndarray, bias: np.ndarray, z: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(x, z, atol=CLOSE)
    np.testing.assert_allclose(bias, b, atol=CLOSE)
    assert x.any(), "the case must leave something"
    assert not x[np.abs(z) < 1e-7].any(), "what is zero at the optimum is exactly zero"
    assert not bias[np.abs(b) < 1e-7].any()


@pytest.mark.parametrize("case", BIAS_CASES)
@pytest.mark.parametrize("bias_step", BIAS_STEPS)
def test_prox_with_biases_of_another_step_equals_cvxpy(case: str, bias_step: str) -> None:
    tilings, step = BIAS_CASES[case], BIAS_STEPS[bias_step]
    x, bias = with_bias(tilings)
    expected = solved_by_cvxpy(tilings, x, bias, np.full_like(x, STEP), np.full_like(bias, step))
    penalty(tilings).prox([x, bias], [STEP, step])
    assert_solved(x, bias, *expected)


@pytest.mark.parametrize("case", BIAS_CASES)
def test_prox_with_biases_in_a_diagonal_metric_equals_cvxpy(case: str) -> None:
    tilings = BIAS_CASES[case]
    x, bias = with_bias(tilings)
    bias_steps = np.random.default_rng(10).uniform(0.2, 1.5, bias.shape)
    expected = solved_by_cvxpy(tilings, x, bias, all_steps(), bias_steps)
    penalty(tilings).prox([x, bias], [all_steps(), bias_steps])
    assert_solved(x, bias, *expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", ["rows", "columns", "tiles"])
def test_group_and_its_bias_become_zero_together(case: str, dtype: type) -> None:
    (tiling,) = BIAS_CASES[case]
    x, bias = (array.astype(dtype) for array in with_bias([tiling]))
    penalty([tiling], dtype).prox([x, bias], [STEP, 2 * STEP])
    corners = [(i, j) for i in range(0, ROWS, tiling.height) for j in range(0, COLUMNS, tiling.width)]
    alive = [x[i : i + tiling.height, j : j + tiling.width].any() for i, j in corners]
    assert 0 < sum(alive) < len(alive)
    np.testing.assert_array_equal(bias != 0, alive)


@pytest.mark.parametrize("case", BIAS_CASES)
def test_bias_of_zero_with_a_step_leaves_the_prox_of_the_tiles(case: str) -> None:
    tilings = BIAS_CASES[case]
    x, bias = with_bias(tilings)
    expected = proxed([Tiling(t.height, t.width, t.strength) for t in tilings], x)
    penalty(tilings).prox([x, bias * 0], [STEP, 0.3])
    np.testing.assert_allclose(x, expected, atol=1e-9)


@pytest.mark.parametrize("case", BIAS_CASES)
def test_moved_is_what_was_taken_off_with_biases_too(case: str) -> None:
    x, bias = with_bias(BIAS_CASES[case])
    before, moved = (x.copy(), bias.copy()), (np.full_like(x, 0.5), np.full_like(bias, 0.5))
    penalty(BIAS_CASES[case]).prox([x, bias], [STEP, 0.3], moved)
    for gained, old, new in zip(moved, before, (x, bias)):
        np.testing.assert_allclose(gained, 0.5 + old - new, atol=1e-14)


def test_value_counts_the_biases_in_the_norms() -> None:
    x, bias = with_bias(BIAS_CASES["rows and columns"])
    rows = np.linalg.norm(np.column_stack([x, bias]), axis=1).sum()
    columns = np.linalg.norm(x, axis=0).sum()
    found = penalty(BIAS_CASES["rows and columns"]).value([x, bias])
    assert found == pytest.approx(1.4 * rows + 1.3 * columns, rel=1e-12)


def test_duals_of_biases_are_part_of_the_state() -> None:
    tilings = BIAS_CASES["rows and columns"]
    one, other = penalty(tilings, np.float32), penalty(tilings, np.float32)
    x, bias = (array.astype(np.float32) for array in with_bias(tilings))
    one.prox([x.copy(), bias.copy()], [STEP, 0.3])
    assert [dual.size for dual in one.state()] == [x.size, x.size, ROWS]
    other.set_state(one.state())
    results = []
    for which in (one, other):
        y, b = x.copy(), bias.copy()
        which.prox([y, b], [STEP, 0.3])
        results.append(np.append(y, b))
    np.testing.assert_array_equal(*results)
