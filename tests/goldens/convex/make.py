"""Makes solutions.npz: minimisers of group lasso problems by skglm, checked by celer and by their optimality conditions.

    python3 -m venv venv && venv/bin/pip install skglm==0.5 celer==0.7.4 scikit-learn==1.6.1 && venv/bin/python make.py

    loss(w, b) + strength * sum over groups of weight * ||w_group||,   biases b free

    least_squares   1 / (2 N) * sum of (X w' + b - Y)^2, as MultiTaskLasso and EuclideanLoss have it
    logistic        1 / N * sum over samples and outputs of log(1 + exp(-+(X w' + b))), Y 0 or 1

What is kept, all of it such that float32 holds it exactly but for the solutions, which are float64:

    LOSS/x (N, inputs)  LOSS/y (N, outputs)
    LOSS/GROUPS/alpha_max                          from it on all weights are zero
    LOSS/GROUPS/strengths (K,)                     FRACTIONS of it
    LOSS/GROUPS/w (K, outputs, inputs)  b (K, outputs)

Several outputs are one problem of skglm's: a block of X for each, the biases features of weight 0.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import celer
import numpy as np
from celer.homotopy import celer_path, mtl_path
from skglm.datafits import LogisticGroup, QuadraticGroup
from skglm.penalties import WeightedGroupL2
from skglm.solvers import GroupBCD, GroupProxNewton

INPUTS, OUTPUTS = 24, 4
FRACTIONS = (0.9, 0.5, 0.2, 0.05, 0.01)
TOLERANCE = 1e-12
MARGIN = 5e-4
"""Part of the strength by which the gradient of a zero group must stay below it: the zeros are beyond doubt in float32."""
SHORTEST = 2e-4
"""Part of the longest group's norm that every group has which is not zero."""

Groups = list[list[tuple[int, int]]]
"""Each group a list of (output, input)."""


def groups_of(kind: str) -> tuple[Groups, np.ndarray]:
    """The groups of the weight matrix, and the weight of each."""
    inputs, outputs = range(INPUTS), range(OUTPUTS)
    if kind == "columns":
        groups = [[(k, j) for k in outputs] for j in inputs]
    elif kind == "rows":
        groups = [[(k, j) for j in inputs] for k in outputs]
    elif kind == "channels":
        groups = [[(k, j) for k in outputs for j in range(a, a + 4)] for a in range(0, INPUTS, 4)]
    elif kind == "blocks":
        groups = [[(k, j) for j in range(a, a + 4)] for k in outputs for a in range(0, INPUTS, 4)]
    elif kind == "elements":
        groups = [[(k, j)] for k in outputs for j in inputs]
    else:  # sizes: twelve inputs in pairs, twelve by six, weighed by the root of their size
        bounds = [*range(0, 12, 2), 12, 18, 24]
        groups = [[(k, j) for k in outputs for j in range(a, b)] for a, b in pairwise(bounds)]
        return groups, np.sqrt([len(group) for group in groups])
    return groups, np.ones(len(groups))


def solve(loss: str, x: np.ndarray, y: np.ndarray, kind: str, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """By skglm: weights (outputs, inputs), biases (outputs,)."""
    groups, weights = groups_of(kind)
    design = np.asfortranarray(np.kron(np.eye(OUTPUTS), np.column_stack([x, np.ones(len(x))])))
    target = y.T.ravel()
    indices = [k * (INPUTS + 1) + j for group in groups for k, j in group]
    indices += [k * (INPUTS + 1) + INPUTS for k in range(OUTPUTS)]
    pointers = np.cumsum([0] + [len(group) for group in groups] + [1] * OUTPUTS)
    where = {"grp_ptr": pointers.astype(np.int32), "grp_indices": np.array(indices, np.int32)}
    strengths = np.concatenate([weights, np.zeros(OUTPUTS)])
    penalty = WeightedGroupL2(alpha / OUTPUTS, strengths, **where)  # the mean is over outputs, too
    if loss == "least_squares":
        datafit = QuadraticGroup(**where)
        solver = GroupBCD(max_iter=1000, max_epochs=10_000, p0=len(strengths), tol=TOLERANCE)
    else:
        datafit, target = LogisticGroup(**where), 2 * target - 1
        solver = GroupProxNewton(max_iter=200, p0=len(strengths), tol=TOLERANCE)
    found, _, _ = solver.solve(design, target, datafit, penalty)
    found = found.reshape(OUTPUTS, INPUTS + 1)
    return found[:, :INPUTS], found[:, INPUTS]


def gradient(loss: str, x: np.ndarray, y: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score = x @ w.T + b
    error = (score if loss == "least_squares" else 1 / (1 + np.exp(-score))) - y
    return error.T @ x / len(x), error.mean(axis=0)


def norms(w: np.ndarray, kind: str) -> np.ndarray:
    return np.array([np.linalg.norm([w[place] for place in group]) for group in groups_of(kind)[0]])


def alpha_max_of(loss: str, x: np.ndarray, y: np.ndarray, kind: str) -> float:
    mean = y.mean(axis=0)
    b = mean if loss == "least_squares" else np.log(mean / (1 - mean))
    slope, _ = gradient(loss, x, y, np.zeros((OUTPUTS, INPUTS)), b)
    return float((norms(slope, kind) / groups_of(kind)[1]).max())


def check(loss: str, x: np.ndarray, y: np.ndarray, kind: str, alpha: float, w: np.ndarray, b: np.ndarray) -> None:
    """The optimality conditions, and that every group is clearly zero or clearly not."""
    groups, weights = groups_of(kind)
    slope, bias_slope = gradient(loss, x, y, w, b)
    assert np.abs(bias_slope).max() < 1e-10
    lengths, limits = norms(w, kind), alpha * weights
    for group, length, limit in zip(groups, lengths, limits):
        g, v = (np.array([m[place] for place in group]) for m in (slope, w))
        if length:
            assert np.abs(g + limit * v / length).max() < 1e-10, (loss, kind, alpha)
            assert length > SHORTEST * lengths.max(), (loss, kind, alpha, length / lengths.max())
        else:
            ratio = np.linalg.norm(g) / limit
            assert ratio < 1 - MARGIN, (loss, kind, alpha, ratio)


def check_by_celer(x: np.ndarray, y: np.ndarray, kind: str, alpha: float, w: np.ndarray, alpha_max: float) -> None:
    """Least squares: celer's own estimators, its own alpha_max."""
    if kind not in ("columns", "elements", "rows", "blocks"):  # it has no groups over several outputs but columns
        return
    if kind == "columns":
        other = celer.MultiTaskLasso(alpha, tol=1e-14).fit(x, y).coef_
        largest = mtl_path(np.asfortranarray(x - x.mean(axis=0)), np.asfortranarray(y - y.mean(axis=0)), n_alphas=1)[0][
            0
        ]
    elif kind == "elements":
        other = np.array([celer.Lasso(alpha, tol=1e-14).fit(x, t).coef_ for t in y.T])
        largest = max(celer_path(x - x.mean(axis=0), t - t.mean(), "lasso", n_alphas=1)[0][0] for t in y.T)
    else:
        size = INPUTS if kind == "rows" else 4
        fits = [celer.GroupLasso(size, alpha, tol=1e-14).fit(x, t) for t in y.T]
        other = np.array([fit.coef_ for fit in fits])
        centred = np.asfortranarray(x - x.mean(axis=0))
        largest = max(celer_path(centred, t - t.mean(), "grouplasso", groups=size, n_alphas=1)[0][0] for t in y.T)
    assert np.abs(other - w).max() < 1e-6 * np.abs(w).max(), (kind, alpha, np.abs(other - w).max())
    assert np.array_equal(norms(other, kind) == 0, norms(w, kind) == 0), (kind, alpha)
    assert abs(largest - alpha_max) < 1e-12 * alpha_max, (kind, largest, alpha_max)


def problem(loss: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs that are somewhat correlated; a third of the input pairs and of the outputs' share in them matters."""
    random = np.random.default_rng(seed)
    samples = 80 if loss == "least_squares" else 240
    x = random.standard_normal((samples, INPUTS)) + 0.5 * random.standard_normal((samples, 1)) + 0.3
    w = random.standard_normal((OUTPUTS, INPUTS)) * np.repeat(random.random(INPUTS // 2) < 0.4, 2)
    w *= random.random((OUTPUTS, 1)) < 0.8
    score = x @ w.T + 0.5
    if loss == "least_squares":
        y = score + 0.5 * random.standard_normal(score.shape)
    else:
        y = random.random(score.shape) < 1 / (1 + np.exp(-0.5 * score))
    return x.astype(np.float32).astype(np.float64), y.astype(np.float32).astype(np.float64)


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for loss, seed in (("least_squares", 1), ("logistic", 1)):
        x, y = problem(loss, seed)
        arrays |= {f"{loss}/x": x.astype(np.float32), f"{loss}/y": y.astype(np.float32)}
        for kind in ("columns", "rows", "channels", "blocks", "elements", "sizes"):
            alpha_max = alpha_max_of(loss, x, y, kind)
            assert norms(solve(loss, x, y, kind, 1.0001 * alpha_max)[0], kind).max() == 0
            assert norms(solve(loss, x, y, kind, 0.9999 * alpha_max)[0], kind).max() > 0
            strengths = alpha_max * np.array(FRACTIONS)
            found = [solve(loss, x, y, kind, alpha) for alpha in strengths]
            for alpha, (w, b) in zip(strengths, found):
                check(loss, x, y, kind, alpha, w, b)
                if loss == "least_squares":
                    check_by_celer(x, y, kind, alpha, w, alpha_max)
            key = f"{loss}/{kind}"
            arrays |= {f"{key}/alpha_max": np.array(alpha_max), f"{key}/strengths": strengths}
            arrays |= {f"{key}/w": np.array([w for w, _ in found]), f"{key}/b": np.array([b for _, b in found])}
            print(key, alpha_max, [int((norms(w, kind) > 0).sum()) for w, _ in found], "of", len(groups_of(kind)[0]))
    np.savez_compressed(Path(__file__).with_name("solutions.npz"), **arrays)


if __name__ == "__main__":
    main()
