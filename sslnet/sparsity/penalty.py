"""Penalty: the interface of a penalty, used by solver, strength control, optimality, zero-group test, measure, snapshot.

A penalty acts on the arrays of all parameters that its groups span, one or several. It is a sum of terms, one for each
kind of groups (``GroupPenalty``); groups of different kinds may overlap. There are two implementations with the same
results: ``TiledGroupLasso`` for the group lassos of one parameter, with compiled kernels, and ``PenaltySum`` for all
other penalties. ``sslnet.sparsity.penalties.tiled_penalty`` chooses between them.

Ref: skglm's ``penalties/base.py`` (the idea of the protocol)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np

from sslnet.sparsity.group_penalty import GroupPenalty, Steps, Tiling

Arrays = Sequence[np.ndarray]
"""Arrays of the penalty's parameters, in order, of any shape."""
TOLERANCE = 1e-3
"""Stopping tolerance of the dual iteration of a prox: largest change of a dual variable, relative to its strength. In
training, the next step starts from these dual variables."""
MAX_SWEEPS = 100

EXACT = 1e-6
"""Tolerance of penalties made by ``exact``."""
SHORT = 1e-4
"""Length of the step of ``subdifferential_distance``, relative to the smallest norm of a non-zero group."""
SHORTEST = 1e-6
"""Lower limit, relative to the largest group norm, of the norm that determines that step; smaller differences would be
lost in rounding."""
SMALL = 1e-3
"""Residual, relative to the strength, that counts as zero in ``dual_norm``."""
RATIOS = 50
"""Maximum number of iterations of ``dual_norm``; usually a few are enough."""
ROUNDS = 20
"""Maximum number of calls of a prox that stopped at MAX_SWEEPS, each continuing from the last dual variables."""


class Penalty(ABC):
    """A sum of penalties on groups of one parameter or several.

    shapes     (rows, columns) of each parameter's matrix
    terms      one penalty for each kind of groups; several terms are all convex
    tolerance  stopping tolerance of the prox of several terms: largest change of a dual in a sweep, relative to its strength
    """

    shapes: list[tuple[int, int]]
    terms: list[GroupPenalty]
    tolerance: float
    sweeps: int = 0
    """Number of sweeps over the dual variables in the last prox; 0 if it needed none."""

    # -- implemented by subclasses -----------------------------------------------------------------------------------

    @abstractmethod
    def norms_of(self, arrays: Arrays, index: int) -> np.ndarray:
        """Euclidean norm of each group of a term, flat."""

    @abstractmethod
    def norms_and_values(self, arrays: Arrays) -> list[tuple[np.ndarray, float]]:
        """For each term, the norms of its groups as in ``norms_of``, and its value."""

    @abstractmethod
    def prox(self, arrays: Arrays, steps: Steps, moved: Sequence[np.ndarray | None] | None = None) -> None:
        """Replaces the arrays x by the z that minimise sum of (z - x)^2 / (2 * step) + value(z).  [overwrites arrays]

        steps  for each array one step size, or one for each of its values; steps below LEAST are raised to LEAST, which
               changes weights by no more than rounding
        moved  for each array None, or an array to which x - z is added  [accumulates]
        """

    @abstractmethod
    def state(self) -> list[np.ndarray]:
        """The dual variables of the last prox, from which the next one starts; empty if none are needed."""

    @abstractmethod
    def set_state(self, duals: Sequence[np.ndarray]) -> None:
        """Sets the dual variables; if their sizes do not fit, the next prox starts from zeros."""

    @abstractmethod
    def exact(self) -> Self:
        """A copy for float64 arrays, with separate dual variables and the tolerance EXACT."""

    # -- derived from these ------------------------------------------------------------------------------------------

    def norms(self, arrays: Arrays) -> list[np.ndarray]:
        """The norms of the groups of each term."""
        return [self.norms_of(arrays, k) for k in range(len(self.terms))]

    def value(self, arrays: Arrays) -> float:
        return sum(value for _, value in self.norms_and_values(arrays))

    def scale(self, factor: float) -> None:
        """Sets the strengths to the initial ones times ``factor``, > 0."""
        for term in self.terms:
            term.scale(factor)

    @property
    def fused(self) -> Tiling | None:
        """The tiling, if this is a single group lasso whose update and prox a kernel can make in one pass; else None."""
        return None

    @property
    def crossed(self) -> tuple[Tiling, Tiling] | None:
        """The tilings by whole rows and by columns, if this is a sum of two such group lassos; else None."""
        return None

    def crossed_dual(self) -> np.ndarray:
        """The dual variables of the columns, flat, with which an update of ``crossed`` tilings begins and ends."""
        raise NotImplementedError

    def add_subgradient(self, arrays: Arrays, gradients: Arrays) -> None:
        """Adds a subgradient of the penalty, 0 for zero groups, to the gradients.  [accumulates into gradients]"""
        raise NotImplementedError

    def matrices(self, arrays: Arrays) -> list[np.ndarray]:
        return [array.reshape(shape) for array, shape in zip(arrays, self.shapes)]

    def covered(self, arrays: Arrays) -> list[np.ndarray]:
        """Masks of the values that are in any group, one bool array per array."""
        inside = [np.zeros(shape) for shape in self.shapes]
        for term in self.terms:
            for part in term.parts:
                tiles = part.tiles(inside[part.index])
                tiles += part.by_tile(np.ones(term.count), 0.0, tiles)
        return [(there > 0).reshape(array.shape) for there, array in zip(inside, arrays)]

    def subdifferential_distance(self, arrays: Arrays, gradients: Arrays) -> list[np.ndarray]:
        """For each term, the norm over each group of the shortest vector of gradient + subdifferential.

        Computed for any penalty, also with overlapping groups, as the displacement of a short proximal step, divided by
        the step:  (w - prox(w - step * g)) / step.  Call it on a penalty made by ``exact``.

        arrays, gradients  float64; gradients of the objective without the penalty
        """
        lengths = np.concatenate([norms[norms > 0] for norms in self.norms(arrays)])
        shortest = max(lengths.min(), SHORTEST * lengths.max()) if lengths.size else 1.0
        pulls = sum(float(np.max(term.strengths)) for term in self.terms)
        longest = max(*(float(np.linalg.norm(gradient)) for gradient in gradients), pulls)
        step = float(SHORT * shortest / longest)
        self.set_state([])
        moved = self._thorough_prox([value - step * gradient for value, gradient in zip(arrays, gradients)], step)
        return self.norms([(value - new) / step for value, new in zip(arrays, moved)])

    def by_strength(self, norms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Norms, or other numbers of each group, divided by the strengths; 0 for groups of strength 0."""
        return [
            np.divide(found, term.strengths, out=np.zeros(found.shape), where=term.strengths > 0)
            for found, term in zip(norms, self.terms)
        ]

    def dual_norm(self, gradients: Arrays) -> float:
        """The smallest factor of all strengths with which zero is a stationary point, given the gradients at zero.

        For a single term with BY_NORM it is the largest ratio of norm to strength. Otherwise it is the maximum over r of
        <-gradient, r> / penalty(r), found by Dinkelbach's method: each iteration raises the factor to the ratio at
        r = the prox of minus the gradient with the current factor, until r is zero, to about SMALL. Call it on a penalty
        made by ``exact``.
        """
        inside = [np.where(there, -gradient, 0.0) for there, gradient in zip(self.covered(gradients), gradients)]
        if (len(self.terms) == 1 and self.terms[0].BY_NORM) or not any(part.any() for part in inside):
            return self._largest(inside)
        factor, left = 0.0, inside
        self.set_state([])
        for _ in range(RATIOS):
            before = factor
            product = sum(float(np.vdot(part, rest)) for part, rest in zip(inside, left))
            factor = max(factor, product / self.value(left))
            left = self._thorough_prox(inside, factor)
            excess = self._largest(left)
            if excess <= SMALL * factor or factor - before <= EXACT * factor:
                break
        return factor + excess

    def _largest(self, arrays: Arrays) -> float:
        """The largest ratio of a group's norm to its strength."""
        return max(float(ratios.max()) for ratios in self.by_strength(self.norms(arrays)))

    def _thorough_prox(self, arrays: Arrays, step: float) -> list[np.ndarray]:
        """The prox of copies of the arrays with one step size, continued until it converges, at most ROUNDS times."""
        for _ in range(ROUNDS):
            result = [array.copy() for array in arrays]
            self.prox(result, [step] * len(result))
            if self.sweeps < MAX_SWEEPS:
                break
        return result
