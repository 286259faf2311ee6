"""Group MCP: the minimax concave penalty of each group's norm. Close to the group lasso for groups of small norm, and
constant for groups of large norm.

    p(w) = strength * r - r^2 / (2 * gamma)      r = ||w|| <= gamma * strength
    p(w) = gamma * strength^2 / 2                r > gamma * strength

The derivative, strength - r / gamma, decreases with the norm r and is 0 from r = gamma * strength on, so that, unlike
with the group lasso, large groups are not shrunk. The penalty is not convex. Its prox is a firm threshold of the norm,
with one step t < gamma for the group:

    ||x|| <= t * strength      z = 0
    ||x|| <= gamma * strength  z = x * (1 - t * strength / ||x||) / (1 - t / gamma)
    else                       z = x

and with t >= gamma a hard threshold: z = 0 where ||x|| <= strength * sqrt(gamma * t), else z = x. Where steps differ
inside a group, z is the best of three candidates: zero, x, and the local minimum between them that ``NormEquation``
finds. Stationary points of the objective are fixed points of steps below gamma; longer steps may move to a lower minimum.

Ref: Zhang 2010, "Nearly unbiased variable selection under minimax concave penalty", eq. 2.1; Breheny and Huang 2015,
"Group descent algorithms for nonconvex penalized linear and logistic regression models with grouped predictors", eq. 4
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from sslnet.sparsity.group_penalty import GroupPenalty, Matrices, NormEquation, Steps, one_step, zero_tiles


class GroupMCP(GroupPenalty):
    SETTINGS: ClassVar = {"gamma": (1.0, math.inf)}
    CONVEX = False

    @property
    def ends(self) -> np.ndarray:
        """(groups) norm from which on the penalty of each group is constant."""
        return self.settings["gamma"] * self.strengths

    @property
    def longest_step(self) -> float:
        return self.settings["gamma"]

    def idle(self, matrices: Matrices) -> str:
        norms, ends = self.norms(matrices), self.ends
        if not norms.size or (norms < ends).any():
            return ""
        return (
            f"MCP pulls on no group: all norms, {norms.min():.3g} and more, are beyond gamma * strength, "
            f"{ends.max():.3g}; "
            f"with gamma: {norms.max() / self.strengths.max():.2g} it pulls on all of them"
        )

    def value_at(self, norms: np.ndarray, matrices: Matrices) -> float:
        return float(self._values(norms).sum())

    def _values(self, norms: np.ndarray) -> np.ndarray:
        """(groups) penalty of each group, given its norm."""
        r = np.minimum(norms, self.ends)
        values: np.ndarray = self.strengths * r - r * r / (2 * self.settings["gamma"])
        return values

    def pulls(self, matrices: Matrices) -> np.ndarray:
        return self.strengths  # the derivative at norm 0, its maximum

    def prox(self, matrices: Matrices, steps: Steps) -> list[np.ndarray]:
        step = one_step(self.parts, steps)
        if step is None:
            return self._prox_by_steps(matrices, steps)
        gamma, norms = self.settings["gamma"], self.norms(matrices)
        if step < gamma:
            zero = norms <= step * self.strengths
            shares = (1 - step * self.strengths / np.where(zero, 1, norms)) / (1 - step / gamma)
            factors = np.where(norms < self.ends, shares, 1.0)
        else:
            zero = norms <= self.strengths * math.sqrt(gamma * step)
            factors = np.ones(self.count)
        for part in self.parts:
            part.scale(matrices[part.index], np.where(zero, 0.0, factors))
        return zero_tiles(self.parts, matrices, zero)

    def _prox_by_steps(self, matrices: Matrices, steps: Steps) -> list[np.ndarray]:
        equation = NormEquation(self.parts, self.strengths, matrices, steps, concavity=1 / self.settings["gamma"])
        norms = self.norms(matrices)
        nonzero = equation.nonzero()
        roots = equation.solve(nonzero & (self.strengths > 0))
        roots[(norms == 0) | (self.strengths == 0)] = np.inf
        both = (norms >= self.ends) & np.isfinite(
            roots
        )  # both x and the root, or zero, are local minima: compare their objectives
        if both.any():
            roots[both & (self._costs(equation, roots) > self._values(self.ends))] = np.inf
        return equation.shrink(roots, roots == 0)

    def _costs(self, equation: NormEquation, roots: np.ndarray) -> np.ndarray:
        """(groups) objective of the prox at the z with these norms, where sum of (z - x)^2 / (2 step) equals the sum of
        x^2 * step * (strength - root / gamma)^2 / (2 * bottom^2)."""
        found = np.zeros(self.count)
        finite = np.where(np.isfinite(roots), roots, 0.0)
        for part in self.parts:
            tiles = part.tiles(equation.matrices[part.index]).astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                bottom, _ = equation.bottom(part, finite, tiles)
                weighed = np.where(tiles == 0, 0.0, (tiles / bottom) ** 2 * equation.step(part, tiles))
            found += part.sums(weighed.sum(axis=(1, 3)).reshape(-1), self.count)
        costs: np.ndarray = found * (self.strengths - finite / self.settings["gamma"]) ** 2 / 2 + self._values(finite)
        return costs
