"""Penalty handles, by which the controller adjusts strengths: one for each penalty on one parameter, and for each kind of
coupled groups.

A ``PenaltyHandle`` scales the strengths of its groups, returns their norms, and ends their penalty: zero weights are then
frozen, the others are trained without a penalty.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sslnet.solver.penalized_update import PenalizedUpdate
from sslnet.solver.update_rules import SGD, Nesterov
from sslnet.sparsity.group_penalty import GroupPart, GroupPenalty
from sslnet.sparsity.groups import ROWS, tiles_of

if TYPE_CHECKING:
    from sslnet.solver.parameter_update import Update
    from sslnet.solver.solver import Solver


class PenaltyHandle:
    """Handle to all or one of the kinds of groups under one penalty.

    penalized  the parameters under the penalty
    terms      numbers of the kinds of groups in the penalty: all, or one
    updates    updates of the parameters in which the groups lie
    makers     updates of weights that produce the grouped channels, not of those that only read them
    ended      whether ``end`` was called
    spared     (groups) bool: groups that the penalty leaves alone for now; None: none
    """

    def __init__(self, penalized: PenalizedUpdate, terms: Sequence[int]) -> None:
        self.penalized, self._numbers = penalized, list(terms)
        self.ended = False
        self.spared: np.ndarray | None = None
        parts = {part.index: part for term in self.terms for part in term.parts}
        members = {index: penalized.members[index] for index in parts}
        self.updates = list(members.values())
        self.makers = [
            update
            for index, update in members.items()
            if update.param.index == 0 and (not penalized.coupled or _makes(parts[index], update))
        ]
        self._bases = [term.strengths for term in self.terms]

    @property
    def terms(self) -> list[GroupPenalty]:
        return [self.penalized.penalty.terms[k] for k in self._numbers]

    @property
    def layers(self) -> set[str]:
        """Names of the layers whose channels or columns become zero with the groups."""
        names = {update.param.layer.name for update in self.makers}
        return names.union(*(term.makers for term in self.terms))

    @property
    def arrays(self) -> list[np.ndarray]:
        return [update.param.blob.data for update in self.updates]

    def scale(self, factor: float) -> None:
        """Sets the strengths to those of the definitions times ``factor``, > 0; does nothing after ``end``."""
        for k, term in enumerate(() if self.ended else self.terms):
            term.scale(factor)
            if self.spared is not None:
                term.strengths = np.where(self._by_kind(self.spared)[k], 0.0, term.strengths)

    def spare(self, part: float) -> None:
        """Exempts the largest groups of each kind, at least one, from the penalty, from the next ``scale`` on; only coupled
        groups.  part: fraction of the groups, 0 to 1"""
        if self.penalized.coupled:
            self.spared = self.largest(part)

    def largest(self, part: float) -> np.ndarray:
        """Mask of the groups of each kind with the largest norms, at least one.  part: fraction of the groups, 0 to 1"""
        found = []
        for norms in self._by_kind(self.norms()):
            mask = np.zeros(norms.size, np.bool_)
            mask[np.argsort(-norms, kind="stable")[: max(1, math.ceil(part * norms.size))]] = True
            found.append(mask)
        return np.concatenate(found)

    def _by_kind(self, values: np.ndarray) -> list[np.ndarray]:
        """Splits values of all groups by kind."""
        return np.split(values, np.cumsum(self.sizes)[:-1])

    def norms(self) -> np.ndarray:
        """Euclidean norm of each group: (groups) float64."""
        penalty, arrays = self.penalized.penalty, self.penalized.arrays
        return np.concatenate([penalty.norms_of(arrays, k) for k in self._numbers]).astype(np.float64)

    def strengths(self) -> np.ndarray:
        """Strengths from the definitions: (groups)."""
        return np.concatenate(self._bases)

    @property
    def sizes(self) -> list[int]:
        """Number of groups of each kind."""
        return [term.count for term in self.terms]

    def first(self, part: float) -> np.ndarray:
        """Mask of the first groups of each kind, at least one.  part: fraction of the groups, 0 to 1"""
        return np.concatenate([np.arange(size) < max(1, math.ceil(part * size)) for size in self.sizes])

    @property
    def count(self) -> int:
        return sum(self.sizes)

    def clear(self, gone: np.ndarray) -> None:
        """Sets groups to zero.  gone: (groups) bool"""
        matrices = self.penalized.matrices
        for term, flags in zip(self.terms, self._by_kind(gone)):
            term.clear(matrices, flags)

    def end(self, solver: Solver) -> None:
        """Ends the penalty: zero weights are frozen, the others are trained without it."""
        self.ended = True
        if self.penalized.coupled:  # the penalty on its other kinds of groups may continue
            for term in self.terms:
                term.freeze(self.penalized.matrices)
        else:
            solver.keep_zeros([self.penalized])

    def speeds(self, rate: float) -> np.ndarray | None:
        """Decrease of each group's norm per iteration by the penalty alone, at the current strengths and learning rate
        ``rate``: (groups); None for update rules with a step size for each weight."""
        first = self.updates[0]
        if not isinstance(first, SGD | Nesterov):
            return None
        pulls = np.concatenate([term.pulls(self.penalized.matrices) for term in self.terms])
        speeds: np.ndarray = rate * first.param.lr_mult / (1 - first.solver.momentum) * pulls
        return speeds

    @contextlib.contextmanager
    def without(self, gone: np.ndarray) -> Iterator[None]:
        """Context manager that sets groups to zero, and restores them on exit.  gone: (groups) bool"""
        before = [array.copy() for array in self.arrays] if gone.any() else []
        if before:
            self.clear(gone)
        try:
            yield
        finally:
            for array, values in zip(self.arrays, before):
                array[...] = values


def _makes(part: GroupPart, update: Update) -> bool:
    """Whether the tiles of a part are outputs of the layer (rows), so that its weights produce the channels."""
    tiles = tiles_of(update.param)
    return (part.height, part.width) in [tiles[name] for name in ROWS if name in tiles]


def find_handles(solver: Solver) -> list[PenaltyHandle]:
    """Makes the handles of all penalties that act by proximal steps on trained parameters."""
    handles = []
    for each in solver.penalties:
        if each.by_prox and each.trained:
            terms = range(len(each.penalty.terms))
            handles += [PenaltyHandle(each, [k]) for k in terms] if each.coupled else [PenaltyHandle(each, terms)]
    return handles


@contextlib.contextmanager
def thinned(handles: Sequence[PenaltyHandle], kept: Sequence[np.ndarray]) -> Iterator[None]:
    """Context manager that zeroes all groups but the kept ones.  kept: (groups) bool for each handle"""
    with contextlib.ExitStack() as stack:
        for handle, keep in zip(handles, kept):
            stack.enter_context(handle.without(~keep))
        yield
