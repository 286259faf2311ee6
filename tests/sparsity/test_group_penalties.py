"""Each penalty on groups: its prox against brute force, its value, its distance to a stationary point, its dual norm.

Brute force is a minimiser of another kind: scipy's L-BFGS-B over the absolute values of a group, from several starts,
with the formulas written down again; and zero, where the norm has no derivative.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from sslnet.sparsity.group_lasso import GroupLasso
from sslnet.sparsity.group_mcp import GroupMCP
from sslnet.sparsity.group_penalty import GroupPart, GroupPenalty, Tiling
from sslnet.sparsity.penalties import PENALTIES, tiled_penalty
from sslnet.sparsity.penalty_sum import PenaltySum
from sslnet.sparsity.sparse_group_lasso import SparseGroupLasso
from sslnet.sparsity.tiled_group_lasso import TiledGroupLasso

SETTINGS: dict[str, dict[str, float]] = {
    "GROUP_LASSO": {},
    "SPARSE_GROUP_LASSO": {"l1_ratio": 0.3},
    "MCP": {"gamma": 3.0},
}
SHAPES = [(4, 6), (3, 8), (4, 1)]
LAYOUTS = {
    "one parameter": [GroupPart(0, 1, 6)],
    "with biases": [GroupPart(0, 1, 6), GroupPart(2, 1, 1)],
    "coupled": [
        GroupPart(0, 1, 6, np.arange(4)),
        GroupPart(1, 3, 2, np.array([0, 1, 2, -1])),
        GroupPart(2, 1, 1, np.arange(4)),
    ],
}
METRICS: dict[str, Any] = {
    "one step": lambda random: [float(random.choice([0.3, 1.0, 2.0, 4.0]))] * 3,
    "a step for each parameter": lambda random: random.uniform(0.1, 4, 3).tolist(),
    "a step for each value": lambda random: [10 ** random.uniform(-1, 0.7, shape) for shape in SHAPES],
}
"""Steps above gamma, too, with which the problem that the prox solves is not convex."""
SIZES = (0.02, 0.3, 1.5, 6.0)
"""Of the weights in each trial, about the thresholds."""


def make(penalty: str, layout: str, strengths: np.ndarray, **more: Any) -> GroupPenalty:
    return PENALTIES[penalty]("groups", LAYOUTS[layout], strengths, settings=SETTINGS[penalty], **more)


def value_and_slope(penalty: str, strength: float, u: np.ndarray) -> tuple[float, np.ndarray]:
    """Of one group of absolute values u, not all zero."""
    r = float(np.linalg.norm(u))
    if penalty == "GROUP_LASSO":
        return strength * r, strength * u / r
    if penalty == "SPARSE_GROUP_LASSO":
        return strength * (0.7 * r + 0.3 * u.sum()), strength * (0.7 * u / r + 0.3)
    if penalty == "MCP":
        if r < 3 * strength:
            return strength * r - r**2 / 6, (strength - r / 3) * u / r
        return 3 * strength**2 / 2, 0 * u
    raise AssertionError(f"write the formula of {penalty} here, with the settings above")


def objective(
    penalty: str, strength: float, x: np.ndarray, steps: np.ndarray, u: np.ndarray
) -> tuple[float, np.ndarray]:
    distance = float(((u - x) ** 2 / (2 * steps)).sum())
    if not u.any():
        return distance, np.zeros_like(u)
    value, slope = value_and_slope(penalty, strength, u)
    return distance + value, (u - x) / steps + slope


def brute_force(penalty: str, strength: float, x: np.ndarray, steps: np.ndarray) -> tuple[float, np.ndarray]:
    """The least objective, and where; for x >= 0, whose signs the minimiser has."""
    best = (objective(penalty, strength, x, steps, 0 * x)[0], 0 * x)
    for share in (1.0, 0.2):
        found = minimize(
            lambda u: objective(penalty, strength, x, steps, u),
            share * x,
            jac=True,
            bounds=[(0, None)] * x.size,
            method="L-BFGS-B",
            options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 300},
        )
        best = min(best, (float(found.fun), found.x), key=lambda each: each[0])
    return best


def values_of(parts: list[GroupPart], k: int, arrays: list[np.ndarray]) -> np.ndarray:
    """What group k holds of arrays, flat."""
    found = []
    for part in parts:
        along = SHAPES[part.index][1] // part.width
        down = SHAPES[part.index][0] // part.height
        groups = np.arange(down * along) if part.groups is None else part.groups
        for tile in np.flatnonzero(groups == k):
            i, j = (tile // along) * part.height, (tile % along) * part.width
            found.append(arrays[part.index][i : i + part.height, j : j + part.width].ravel())
    return np.concatenate(found)


def cases(seed: int, metric: str) -> Iterator[tuple[list[np.ndarray], list[Any], list[np.ndarray], np.ndarray]]:
    """Weights of all sizes about the thresholds, steps as given and as arrays, strengths."""
    random = np.random.default_rng(seed)
    for size in SIZES:
        x = [random.standard_normal(shape) * size * 10 ** random.uniform(-0.5, 0.5, (shape[0], 1)) for shape in SHAPES]
        steps = METRICS[metric](random)
        yield x, steps, [np.broadcast_to(s, shape) for s, shape in zip(steps, SHAPES)], random.uniform(0.1, 1.5, 4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_prox_is_the_least_that_brute_force_finds(penalty: str, layout: str, metric: str) -> None:
    zeros = kept = 0
    for x, steps, each, strengths in cases(7, metric):
        z = [array.copy() for array in x]
        term = make(penalty, layout, strengths)
        PenaltySum(SHAPES, [term]).prox(z, steps)
        for k, strength in enumerate(strengths):
            before, after, own = (values_of(LAYOUTS[layout], k, arrays) for arrays in (x, z, each))
            assert (after * before >= 0).all()
            least, where = brute_force(penalty, float(strength), np.abs(before), own)
            mine = objective(penalty, float(strength), np.abs(before), own, np.abs(after))[0]
            assert mine <= least * (1 + 1e-9) + 1e-12
            if mine > least * (1 - 1e-9) - 1e-12 and own.max() < term.longest_step:  # only one minimum
                np.testing.assert_allclose(np.abs(after), where, atol=2e-4 * max(1.0, float(np.abs(before).max())))
            zeros, kept = zeros + (not after.any()), kept + bool(after.any())
    assert zeros and kept, "the cases must have both"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_prox_in_single_precision_is_that_in_double(penalty: str, metric: str) -> None:
    for x, steps, _, strengths in cases(8, metric):
        single = [array.astype(np.float32) for array in x]
        given = [s if isinstance(s, float) else s.astype(np.float32) for s in steps]
        double = [array.astype(np.float64) for array in single]
        same = [s if isinstance(s, float) else s.astype(np.float64) for s in given]
        PenaltySum(SHAPES, [make(penalty, "coupled", strengths)]).prox(single, given)
        PenaltySum(SHAPES, [make(penalty, "coupled", strengths)]).prox(double, same)
        for one, other in zip(single, double):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(one == 0, other.astype(np.float32) == 0)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_value_is_the_formula(penalty: str) -> None:
    for x, _, _, strengths in cases(1, "one step"):
        expected = sum(
            value_and_slope(penalty, float(s), np.abs(values_of(LAYOUTS["coupled"], k, x)))[0]
            for k, s in enumerate(strengths)
        )
        assert make(penalty, "coupled", strengths).value(x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_groups_of_zeros_stay_zero_and_frozen_ones_too(penalty: str) -> None:
    term = make(penalty, "coupled", np.full(4, 0.5))
    x = [np.ones(shape, np.float32) for shape in SHAPES]
    x[0][1], x[1][:, 2:4], x[2][1] = 0, 0, 0
    z = [array.copy() for array in x]
    term.prox(z, [0.1] * 3)
    assert not z[0][1].any() and not z[1][:, 2:4].any() and not z[2][1].any() and z[0][0].all()
    term.freeze(x)
    moved = [array + 0.01 for array in x]
    term.prox(moved, [0.1] * 3)
    for new, old in zip(moved, x):  # what was zero is zero, the rest is left as it comes
        np.testing.assert_array_equal(new, np.where(old == 0, 0, old + np.float32(0.01)))
    assert term.value(x) == 0


def test_mcp_leaves_long_groups_as_they_are_and_takes_short_ones_as_the_lasso() -> None:
    x = np.array([[3.0, 4.0], [0.03, 0.04]])
    z, lasso = x.copy(), x.copy()
    PenaltySum([(2, 2)], [GroupMCP("g", [GroupPart(0, 1, 2)], np.full(2, 0.5), settings={"gamma": 4.0})]).prox(
        [z], [0.05]
    )
    PenaltySum([(2, 2)], [GroupLasso("g", [GroupPart(0, 1, 2)], np.full(2, 0.5))]).prox([lasso], [0.05])
    np.testing.assert_array_equal(z[0], x[0])
    np.testing.assert_allclose(z[1], lasso[1] / (1 - 0.05 / 4))


def test_size_counts_for_the_norm_alone() -> None:
    """As Simon et al. have it: (1 - ratio) * strength * root of the size * norm + ratio * strength * l1 norm."""
    x = np.random.default_rng(0).standard_normal((2, 9))
    term = SparseGroupLasso("g", [GroupPart(0, 1, 9)], np.full(2, 0.5 * 3), unit=3.0, settings={"l1_ratio": 0.2})
    expected = 0.8 * 0.5 * 3 * np.linalg.norm(x, axis=1).sum() + 0.2 * 0.5 * np.abs(x).sum()
    assert term.value([x]) == pytest.approx(expected)


# -- a penalty on one parameter is one of several with one part --------------------------------------------------------

TILINGS = {
    "rows": [Tiling(1, 12, 1.0)],
    "rows with biases": [Tiling(1, 12, 1.0, bias=True)],
    "rows and columns": [Tiling(1, 12, 1.0), Tiling(8, 1, 0.8)],
    "rows with biases and columns": [Tiling(1, 12, 1.0, bias=True), Tiling(8, 1, 0.8)],
}


@pytest.mark.parametrize("metric", ["one step", "a step for each value"])
@pytest.mark.parametrize("case", TILINGS)
def test_both_implementations_of_the_group_lasso_agree(case: str, metric: str) -> None:
    fast = tiled_penalty((8, 12), TILINGS[case], np.float64).exact()
    assert isinstance(fast, TiledGroupLasso)
    general = PenaltySum(fast.shapes, fast.terms).exact()
    random = np.random.default_rng(3)
    shapes = [(8, 12), (8, 1)][: len(fast.shapes)]
    x, g = ([random.standard_normal(shape) * random.uniform(0.2, 1.6, (8, 1)) for shape in shapes] for _ in range(2))
    steps: list[Any] = [0.7, 0.3][: len(x)]
    if metric != "one step":
        steps = [random.uniform(0.2, 1.5, array.shape) for array in x]
    measured = zip(fast.norms(x), fast.norms_and_values(x), general.norms_and_values(x))
    for norms, (one, value), (other, general_value) in measured:
        np.testing.assert_array_equal(norms, one)
        np.testing.assert_allclose(one, other)
        assert value == pytest.approx(general_value)
    found = []
    for penalty in (fast, general):
        z, moved = [array.copy() for array in x], [np.full_like(array, 0.5) for array in x]
        penalty.prox(z, steps, moved)
        for gained, old, new in zip(moved, x, z):
            np.testing.assert_allclose(gained, 0.5 + old - new, atol=1e-12)
        found.append(z)
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_array_equal(one == 0, other == 0)
    assert fast.dual_norm(g) == pytest.approx(general.dual_norm(g), rel=2e-3)
    w = [array.copy() for array in found[0]]
    for one, other in zip(fast.subdifferential_distance(w, g), general.subdifferential_distance(w, g)):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_sparse_groups_may_overlap_others() -> None:
    """Rows under a sparse group lasso, columns under a group lasso: the prox of the sum is cvxpy's."""
    tilings = [Tiling(1, 12, 1.2, penalty="SPARSE_GROUP_LASSO", settings=(("l1_ratio", 0.3),)), Tiling(8, 1, 0.7)]
    penalty = tiled_penalty((8, 12), tilings)
    penalty.tolerance = 1e-9
    x = np.random.default_rng(5).standard_normal((8, 12)) * np.linspace(0.4, 1.6, 8)[:, None]
    z = cp.Variable(x.shape)
    cost = cp.sum_squares(z - x) / (2 * 0.6) + 1.2 * 0.7 * cp.sum(cp.norm(z, axis=1)) + 1.2 * 0.3 * cp.sum(cp.abs(z))
    problem = cp.Problem(cp.Minimize(cost + 0.7 * cp.sum(cp.norm(z, axis=0))))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    mine = x.copy()
    for _ in range(5):  # the duals are kept: what one call leaves open the next one finishes
        mine = x.copy()
        penalty.prox([mine], [0.6])
    np.testing.assert_allclose(mine, z.value, atol=5e-5)
    np.testing.assert_array_equal(mine == 0, np.abs(z.value) < 5e-5)
    assert (mine == 0).any() and mine.any()


# -- optimality --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES)
def test_subdifferential_distance_by_hand(penalty: str) -> None:
    """Of groups that are not zero the gradient plus the slope, of zeros what is beyond the subdifferential."""
    random = np.random.default_rng(1)
    strengths = np.array([0.4, 1.5, 0.6, 1.1])
    term = make(penalty, "one parameter", strengths)
    w, g = random.standard_normal((4, 6)), random.standard_normal((4, 6))
    w[0], w[1], w[2, 2] = 0, 0, 0
    g[1] *= 0.1
    expected = []
    for k, strength in enumerate(strengths):
        soft = 0.3 * strength if penalty == "SPARSE_GROUP_LASSO" else 0.0
        beyond = g[k] - np.clip(g[k], -soft, soft)  # where a weight is zero, so much of the gradient l1 makes up for
        if not w[k].any():
            rest = max(0.0, float(np.linalg.norm(beyond)) - (strength - soft))
        else:
            slope = value_and_slope(penalty, float(strength), np.abs(w[k]))[1] * np.sign(w[k])
            rest = float(np.linalg.norm(np.where(w[k] == 0, beyond, g[k] + slope)))
        expected.append(rest)
    assert expected[1] == 0 < expected[0]
    (found,) = PenaltySum([(4, 6)], [term]).exact().subdifferential_distance([w], [g])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_dual_norm_is_the_least_factor_with_which_zero_is_stationary(penalty: str) -> None:
    random = np.random.default_rng(2)
    strengths = random.uniform(0.3, 2, 4)
    g = [random.standard_normal(shape) for shape in SHAPES]

    def excess(factor: float, k: int) -> float:
        gradient, strength = np.abs(values_of(LAYOUTS["coupled"], k, g)), factor * strengths[k]
        if penalty == "SPARSE_GROUP_LASSO":
            return float(np.linalg.norm(np.maximum(0, gradient - 0.3 * strength)) - 0.7 * strength)
        return float(np.linalg.norm(gradient) - strength)

    expected = max(brentq(excess, 1e-6, 1e3, args=(k,)) for k in range(4))
    found = PenaltySum(SHAPES, [make(penalty, "coupled", strengths)]).exact().dual_norm(g)
    assert found == pytest.approx(expected, rel=2e-3)
