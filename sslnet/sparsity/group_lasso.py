"""The group lasso: the Euclidean norm of each group.

    p(w) = strength * ||w||

    prox, with one step t for the group:  z = x * max(0, 1 - t * strength / ||x||)

Where steps differ inside a group (lr_mult, adaptive rules), z = x * r / (r + t * strength) with the r = ||z|| that
``NormEquation`` finds, and z = 0 where sum of (x / t)^2 <= strength^2.

Ref: Yuan and Lin 2006, "Model selection and estimation in regression with grouped variables"; Wen et al. 2016
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet.sparsity.group_penalty import GroupPart, GroupPenalty, Matrices, NormEquation, Steps, one_step, zero_tiles


class GroupLasso(GroupPenalty):
    SUBGRADIENT = True

    def value_at(self, norms: np.ndarray, matrices: Matrices) -> float:
        return float(self.strengths @ norms)

    def prox(self, matrices: Matrices, steps: Steps) -> list[np.ndarray]:
        return shrink_groups(self.parts, self.strengths, matrices, steps)

    def pulls(self, matrices: Matrices) -> np.ndarray:
        return self.strengths


def shrink_groups(
    parts: Sequence[GroupPart], strengths: np.ndarray, matrices: Matrices, steps: Steps
) -> list[np.ndarray]:
    """The prox of strength * ||group||.  [overwrites matrices]  returns as ``GroupPenalty.prox``"""
    step = one_step(parts, steps)
    if step is None:
        equation = NormEquation(parts, strengths, matrices, steps)
        nonzero = equation.nonzero()
        return equation.shrink(equation.solve(nonzero & (strengths > 0)), ~nonzero)
    norms = np.sqrt(sum(part.squares(matrices[part.index], len(strengths)) for part in parts))
    thresholds = step * strengths
    nonzero = norms > thresholds
    factors = np.where(nonzero, 1 - thresholds / np.where(nonzero, norms, 1), 0.0)
    for part in parts:
        part.scale(matrices[part.index], factors)
    return zero_tiles(parts, matrices, ~nonzero)
