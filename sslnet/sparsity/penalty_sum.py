"""PenaltySum: the sum of penalties on groups in one or several parameters, and its proximal operator.

Groups of different kinds may overlap, such as rows and columns of one matrix. The prox of the sum is found by
block-coordinate ascent on its dual, one kind after the other. The dual variables are kept as a start for the next call,
which then usually needs one or two sweeps; they are part of a run's state.

    minimise over z   sum of ||z - x||^2 / (2 step) + sum over the terms of value(z)

Ref: Wen et al. 2016, section 3.2 (filters and channels together); Jenatton et al. 2011 (the dual)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet.kernels.optim.prox import LEAST
from sslnet.sparsity.group_penalty import GroupPenalty, Steps
from sslnet.sparsity.penalty import EXACT, MAX_SWEEPS, TOLERANCE, Arrays, Penalty


class PenaltySum(Penalty):
    def __init__(
        self, shapes: Sequence[tuple[int, int]], terms: Sequence[GroupPenalty], tolerance: float = TOLERANCE
    ) -> None:
        self.shapes, self.terms, self.tolerance = list(shapes), list(terms), tolerance

    def norms_of(self, arrays: Arrays, index: int) -> np.ndarray:
        return self.terms[index].norms(self.matrices(arrays))

    def norms_and_values(self, arrays: Arrays) -> list[tuple[np.ndarray, float]]:
        matrices = self.matrices(arrays)
        norms = [term.norms(matrices) for term in self.terms]
        return [(found, term.value_at(found, matrices)) for term, found in zip(self.terms, norms)]

    def prox(self, arrays: Arrays, steps: Steps, moved: Sequence[np.ndarray | None] | None = None) -> None:
        before = [None if gains is None else array.copy() for array, gains in zip(arrays, moved or ())]
        self._prox(self.matrices(arrays), self._step_matrices(steps))
        for array, gains, old in zip(arrays, moved or (), before):
            if gains is not None and old is not None:
                gains += old - array

    def _prox(self, matrices: list[np.ndarray], steps: list[Any]) -> None:
        if len(self.terms) == 1:
            self.terms[0].prox(matrices, steps)
            return
        self._ready_duals(matrices)
        for term in self.terms:
            for part, dual in zip(term.parts, term.duals):
                matrices[part.index][...] -= steps[part.index] * dual
        zero: list[list[np.ndarray]] = [[]] * len(self.terms)
        for self.sweeps in range(1, MAX_SWEEPS + 1):
            change = 0.0
            for k, term in enumerate(self.terms):
                zero[k], largest = self._ascend(term, matrices, steps)
                change = max(change, largest)
            if change <= self.tolerance:
                break
        for term, flags in zip(self.terms, zero):  # remove rounding errors where the optimum is exactly zero
            for part, gone in zip(term.parts, flags):
                tiles = part.tiles(matrices[part.index])
                tiles *= np.where(gone, 0.0, 1.0).astype(tiles.dtype)

    def _ascend(
        self, term: GroupPenalty, matrices: list[np.ndarray], steps: list[Any]
    ) -> tuple[list[np.ndarray], float]:
        """Optimises the dual variables of one term, the others fixed. Returns which values are zero (``GroupPenalty.prox``)
        and the largest change relative to the strength."""
        before = {}
        for part, dual in zip(term.parts, term.duals):
            matrices[part.index][...] += steps[part.index] * dual
            before[part.index] = matrices[part.index].copy()
        zero = term.prox(matrices, steps)
        moved = np.zeros(term.count)
        for k, part in enumerate(term.parts):
            new = (before[part.index] - matrices[part.index]) / steps[part.index]
            moved += part.squares(new - term.duals[k], term.count)
            term.duals[k] = new
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(term.strengths > 0, np.sqrt(moved) / term.strengths, 0.0)
        return zero, float(relative.max(initial=0.0))

    def state(self) -> list[np.ndarray]:
        return [dual for term in self.terms for dual in term.duals]

    def set_state(self, duals: Sequence[np.ndarray]) -> None:
        shapes = [self.shapes[part.index] for term in self.terms for part in term.parts]
        fit = [dual.size for dual in duals] == [rows * columns for rows, columns in shapes]
        left = iter([np.array(dual).reshape(shape) for dual, shape in zip(duals, shapes)] if fit else [])
        for term in self.terms:
            term.duals = [next(left) for _ in term.parts] if fit else []

    def exact(self) -> PenaltySum:
        return PenaltySum(self.shapes, [term.copy() for term in self.terms], EXACT)

    def _ready_duals(self, matrices: Sequence[np.ndarray]) -> None:
        for term in self.terms:
            term.duals = term.duals or [np.zeros_like(matrices[part.index]) for part in term.parts]

    def _step_matrices(self, steps: Steps) -> list[Any]:
        least = float(LEAST)
        return [
            max(step, least) if isinstance(step, float) else np.maximum(step.reshape(shape), least)
            for step, shape in zip(steps, self.shapes)
        ]
