"""What everybody asks of a penalty: solver, control of strengths, optimality, zero-group test, measure, snapshot.

A penalty acts on the arrays of one parameter or of several, which its groups reach into; a penalty on one parameter is
one of several with one part. It is a sum of terms, one for each kind of groups (``GroupPenalty``), which may overlap.
There are two implementations, with the same answers: ``TiledGroupLasso`` for the group lassos of one parameter,
compiled, and ``PenaltySum`` for all else. ``sslnet.sparsity.penalties.tiled_penalty`` chooses.

Ref: skglm's ``penalties/base.py`` (the idea of the protocol)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np

from sslnet.sparsity.group_penalty import GroupPenalty, Steps, Tiling

Arrays = Sequence[np.ndarray]
"""Those of the penalty's parameters, in their order and of any shape."""
TOLERANCE = 1e-3
"""The prox of several kinds of groups ends when no dual variable changes by more than this part of its strength: in a
run the next step goes on from where this one ended."""
MAX_SWEEPS = 100

EXACT = 1e-6
"""The tolerance of ``exact``."""
SHORT = 1e-4
"""Length of the step of ``subdifferential_distance`` by that of the shortest group which is not zero."""
SHORTEST = 1e-6
"""Groups shorter than this part of the longest do not make the step shorter: differences would drown in rounding."""
SMALL = 1e-3
"""A residual that counts as none when ``dual_norm`` is sought, by the strength."""
RATIOS = 50
"""How often the factor of ``dual_norm`` is raised at most; mostly a few times are enough."""
ROUNDS = 20
"""How often a prox of several kinds of groups goes on where it had to stop."""


class Penalty(ABC):
    """A sum of penalties on groups of one parameter or several.

    shapes     (rows, columns) of each parameter's matrix
    terms      one for each kind of groups; where several overlap, all are convex
    tolerance  of the prox of several terms: the largest change of a dual in a sweep, by the strength
    """

    shapes: list[tuple[int, int]]
    terms: list[GroupPenalty]
    tolerance: float
    sweeps: int = 0
    """Sweeps over the duals that the last prox took; 0 when it needed none."""

    # -- what each implementation has --------------------------------------------------------------------------------

    @abstractmethod
    def norms_of(self, arrays: Arrays, index: int) -> np.ndarray:
        """Euclidean norm of each group of a term, flat."""

    @abstractmethod
    def values(self, arrays: Arrays) -> list[float]:
        """The part of each term."""

    @abstractmethod
    def prox(self, arrays: Arrays, steps: Steps, moved: Sequence[np.ndarray | None] | None = None) -> None:
        """The arrays become the z that minimise sum of (z - x)^2 / (2 * step) + value(z).  [overwrites arrays]

        steps  for each array one step, or one for each of its values; below LEAST it is taken as LEAST, which changes no
               weight by more than rounding does
        moved  for each array none, or an array to which what is taken off is added  [accumulates]
        """

    @abstractmethod
    def state(self) -> list[np.ndarray]:
        """The duals of the last prox, from which the next one starts; none while none are needed."""

    @abstractmethod
    def set_state(self, duals: Sequence[np.ndarray]) -> None:
        """Takes over duals of the right sizes; without them the next prox starts from zeros."""

    @abstractmethod
    def exact(self) -> Self:
        """The same with duals of its own, for arrays of float64, with a prox to the tolerance EXACT."""

    # -- what follows from that --------------------------------------------------------------------------------------

    def norms(self, arrays: Arrays) -> list[np.ndarray]:
        """For each term the norms of its groups."""
        return [self.norms_of(arrays, k) for k in range(len(self.terms))]

    def value(self, arrays: Arrays) -> float:
        return sum(self.values(arrays))

    def scale(self, factor: float) -> None:
        """Multiplies the strengths that it was made with by ``factor``, > 0."""
        for term in self.terms:
            term.scale(factor)

    @property
    def fused(self) -> Tiling | None:
        """The tiles of the one group lasso that this is, where kernels can take the update and its prox in one pass."""
        return None

    def add_subgradient(self, arrays: Arrays, gradients: Arrays) -> None:
        """gradients += a subgradient; groups of zeros add nothing.  [accumulates into gradients]"""
        raise NotImplementedError

    def matrices(self, arrays: Arrays) -> list[np.ndarray]:
        return [array.reshape(shape) for array, shape in zip(arrays, self.shapes)]

    def covered(self, arrays: Arrays) -> list[np.ndarray]:
        """For each array which of its values are in any group."""
        inside = [np.zeros(shape) for shape in self.shapes]
        for term in self.terms:
            for part in term.parts:
                tiles = part.tiles(inside[part.index])
                tiles += part.by_tile(np.ones(term.count), 0.0, tiles)
        return [(there > 0).reshape(array.shape) for there, array in zip(inside, arrays)]

    def subdifferential_distance(self, arrays: Arrays, gradients: Arrays) -> list[np.ndarray]:
        """For each term and group how long its part is of the shortest vector of gradient + subdifferential.

        That is what a proximal step moves, by its length, for steps that go to zero; for any penalty, also where groups
        overlap:  (w - prox(w - step * g)) / step.  To be asked of an ``exact`` penalty.

        arrays, gradients  float64; the gradients of all but the penalty
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
        """Norms, or other numbers of each group, by the strengths; those of no strength count as 0."""
        return [
            np.divide(found, term.strengths, out=np.zeros(found.shape), where=term.strengths > 0)
            for found, term in zip(norms, self.terms)
        ]

    def dual_norm(self, gradients: Arrays) -> float:
        """The least factor of all strengths with which zero is a stationary point, given the gradients at zero.

        Where all that counts of a single kind of groups are its norms, it is the largest norm by its strength. Else it
        is the largest of <-gradient, r> / penalty(r) over all r; from below it is raised to that of r = the prox of
        minus the gradient with the factor so far, until that is zero, to about SMALL. To be asked of an ``exact``
        penalty.
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
        """The largest norm by its strength."""
        return max(float(ratios.max()) for ratios in self.by_strength(self.norms(arrays)))

    def _thorough_prox(self, arrays: Arrays, step: float) -> list[np.ndarray]:
        """The prox with one step for all, however many sweeps it takes."""
        for _ in range(ROUNDS):
            result = [array.copy() for array in arrays]
            self.prox(result, [step] * len(result))
            if self.sweeps < MAX_SWEEPS:
                break
        return result
