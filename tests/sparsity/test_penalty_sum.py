"""Groups over several parameters: the prox is the minimiser, groups die together, a run resumes bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from sslnet.sparsity.group_lasso import GroupLasso
from sslnet.sparsity.group_penalty import GroupPart
from sslnet.sparsity.penalty_sum import PenaltySum


def families(strength: float = 1.0, rows_too: bool = True) -> list[GroupLasso]:
    """Rows of a 4 x 6 matrix with pairs of columns of a 3 x 8 one and a bias; rows of the second; one column is in no
    group."""
    together = GroupLasso(
        "first",
        [
            GroupPart(0, 1, 6, np.arange(4)),
            GroupPart(1, 3, 2, np.array([0, 1, 2, -1])),
            GroupPart(2, 1, 1, np.arange(4)),
        ],
        strength * np.array([1.0, 0.5, 2.0, 0.7]),
    )
    rows = GroupLasso("second", [GroupPart(1, 1, 8, np.array([0, 1, 1]))], strength * np.array([0.9, 1.1]))
    return [together, rows] if rows_too else [together]


SHAPES = [(4, 6), (3, 8), (4, 1)]


def problem(x: Sequence[np.ndarray], steps: Sequence[Any], groups: Sequence[GroupLasso]) -> list[np.ndarray]:
    """The same by cvxpy."""
    z = [cp.Variable(array.shape) for array in x]
    cost = sum(
        cp.sum_squares(cp.multiply(1 / np.sqrt(2 * np.broadcast_to(s, a.shape)), v - a)) for v, a, s in zip(z, x, steps)
    )
    for family in groups:
        for k, strength in enumerate(family.strengths):
            pieces = []
            for part in family.parts:
                down, along = (n // t for n, t in zip(SHAPES[part.index], (part.height, part.width)))
                for t in np.flatnonzero(part.groups == k):
                    i, j = (t // along) * part.height, (t % along) * part.width
                    pieces.append(cp.vec(z[part.index][i : i + part.height, j : j + part.width], order="C"))
                assert down * along == len(part.groups)
            cost = cost + strength * cp.norm(cp.hstack(pieces))
    cp.Problem(cp.Minimize(cost)).solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return [np.asarray(v.value) for v in z]


STEPS: dict[str, Any] = {
    "one step": lambda random: [0.5, 0.5, 0.5],
    "a step for each parameter": lambda random: [0.5, 0.5, 1.0],
    "a step for each value": lambda random: [random.uniform(0.1, 1, shape) for shape in SHAPES],
}


CLOSE = 5e-5
"""Of what CLARABEL finds: it ends at a gap of at most 1e-9 here, and sqrt(2 step gap) is how far off it then may be."""


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # 1e-10 is more than it promises, and than is needed
@pytest.mark.parametrize("kind", list(STEPS))
@pytest.mark.parametrize("rows_too", [False, True])
@pytest.mark.parametrize("strength", [0.3, 1.0, 2.5])
def test_prox_is_the_minimiser(kind: str, rows_too: bool, strength: float) -> None:
    random = np.random.default_rng(3)
    x = [random.standard_normal(shape) for shape in SHAPES]
    steps = STEPS[kind](random)
    groups = families(strength, rows_too)
    expected = problem(x, steps, groups)
    penalty = PenaltySum(SHAPES, groups, tolerance=1e-9)
    z = [array.copy() for array in x]
    for _ in range(5):  # the duals are kept: what one call leaves open the next one finishes
        z = [array.copy() for array in x]
        penalty.prox(z, steps)
    for found, wanted in zip(z, expected):
        np.testing.assert_allclose(found, wanted, atol=CLOSE)
    dead = np.concatenate([np.abs(w).ravel() < CLOSE for w in expected])
    zero = np.concatenate([f.ravel() == 0 for f in z])
    np.testing.assert_array_equal(zero, dead)


def test_value_is_the_sum_of_the_norms() -> None:
    random = np.random.default_rng(0)
    a, b, c = (random.standard_normal(shape) for shape in SHAPES)
    (together,) = families(1.0, rows_too=False)
    norms = [
        np.sqrt((a[0] ** 2).sum() + (b[:, :2] ** 2).sum() + c[0, 0] ** 2),
        np.sqrt((a[1] ** 2).sum() + (b[:, 2:4] ** 2).sum() + c[1, 0] ** 2),
        np.sqrt((a[2] ** 2).sum() + (b[:, 4:6] ** 2).sum() + c[2, 0] ** 2),
        np.sqrt((a[3] ** 2).sum() + c[3, 0] ** 2),
    ]
    penalty = PenaltySum(SHAPES, [together])
    np.testing.assert_allclose(penalty.norms_of([a, b, c], 0), norms)
    assert penalty.value([a, b, c]) == pytest.approx(np.dot(norms, [1.0, 0.5, 2.0, 0.7]))


def test_strong_penalty_leaves_nothing_but_what_is_in_no_group() -> None:
    x = [np.ones(shape, np.float32) for shape in SHAPES]
    PenaltySum(SHAPES, families(100.0, rows_too=False)).prox(x, [1.0, 1.0, 2.0])
    assert not x[0].any() and not x[2].any()
    assert (x[1][:, 6:] == 1).all() and not x[1][:, :6].any()


def test_duals_are_the_state() -> None:
    random = np.random.default_rng(1)
    x = [random.standard_normal(shape) for shape in SHAPES]
    one, other = PenaltySum(SHAPES, families()), PenaltySum(SHAPES, families())
    one.prox([array.copy() for array in x], [0.5] * 3)
    other.set_state([dual.copy() for dual in one.state()])
    results = []
    for penalty in (one, other):
        z = [array + 0.01 for array in x]
        penalty.prox(z, [0.5] * 3)
        results.append(z)
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)
