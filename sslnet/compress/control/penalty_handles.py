"""What a run's strengths are turned by: a handle for each penalty on one parameter, and for each kind of coupled
groups.

A handle (``Lever``) scales the strengths of its groups, says how long each group is, and ends their penalty: what is
zero then stays zero, the rest is trained on without a penalty.
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


class Lever:
    """Some kinds of groups under one penalty.

    penalized  the parameters under the penalty
    terms      which of its kinds of groups, by number: all, or one
    updates    of the parameters in which the groups lie
    makers     updates of weights that produce the grouped channels, not of those that only read them
    ended      whether ``end`` was called
    """

    def __init__(self, penalized: PenalizedUpdate, terms: Sequence[int]) -> None:
        self.penalized, self._numbers = penalized, list(terms)
        self.ended = False
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
        """Names of the layers that lose channels, or columns, with the groups."""
        names = {update.param.layer.name for update in self.makers}
        return names.union(*(term.makers for term in self.terms))

    @property
    def arrays(self) -> list[np.ndarray]:
        return [update.param.blob.data for update in self.updates]

    def scale(self, factor: float) -> None:
        """Multiplies the strengths that the definitions ask for by ``factor``, > 0; of a lever that has ended nothing."""
        for term in () if self.ended else self.terms:
            term.scale(factor)

    def norms(self) -> np.ndarray:
        """(groups) float64: Euclidean norm of each group."""
        penalty, arrays = self.penalized.penalty, self.penalized.arrays
        return np.concatenate([penalty.norms_of(arrays, k) for k in self._numbers]).astype(np.float64)

    def strengths(self) -> np.ndarray:
        """(groups): as the definitions have them."""
        return np.concatenate(self._bases)

    @property
    def sizes(self) -> list[int]:
        """How many groups each kind has."""
        return [term.count for term in self.terms]

    def first(self, part: float) -> np.ndarray:
        """(groups) bool: the first ones of each kind, one at least.  part: 0 to 1"""
        return np.concatenate([np.arange(size) < max(1, math.ceil(part * size)) for size in self.sizes])

    @property
    def count(self) -> int:
        return sum(self.sizes)

    def clear(self, gone: np.ndarray) -> None:
        """Sets groups to zero.  gone: (groups) bool"""
        matrices = self.penalized.matrices
        for term, flags in zip(self.terms, np.split(gone, np.cumsum(self.sizes)[:-1])):
            term.clear(matrices, flags)

    def end(self, solver: Solver) -> None:
        """Zeros stay zero from here on, the rest is trained without penalty."""
        self.ended = True
        if self.penalized.coupled:  # whose other kinds of groups may go on
            for term in self.terms:
                term.freeze(self.penalized.matrices)
        else:
            solver.keep_zeros([self.penalized])

    def speeds(self, rate: float) -> np.ndarray | None:
        """(groups) by how much the penalty shortens each in an iteration, at its strengths now and the learning rate
        ``rate``; None for rules whose steps differ from weight to weight."""
        first = self.updates[0]
        if not isinstance(first, SGD | Nesterov):
            return None
        pulls = np.concatenate([term.pulls(self.penalized.matrices) for term in self.terms])
        return rate * first.param.lr_mult / (1 - first.solver.momentum) * pulls

    @contextlib.contextmanager
    def without(self, gone: np.ndarray) -> Iterator[None]:
        """Some groups are zero inside, and what they were afterwards."""
        before = [array.copy() for array in self.arrays] if gone.any() else []
        if before:
            self.clear(gone)
        try:
            yield
        finally:
            for array, values in zip(self.arrays, before):
                array[...] = values


def _makes(part: GroupPart, update: Update) -> bool:
    """Whether the tiles of weights are those of outputs."""
    tiles = tiles_of(update.param)
    return (part.height, part.width) in [tiles[name] for name in ROWS if name in tiles]


def find_levers(solver: Solver) -> list[Lever]:
    """All that act by proximal steps on parameters which are trained."""
    levers = []
    for each in solver.penalties:
        if each.by_prox and each.trained:
            terms = range(len(each.penalty.terms))
            levers += [Lever(each, [k]) for k in terms] if each.coupled else [Lever(each, terms)]
    return levers


@contextlib.contextmanager
def thinned(levers: Sequence[Lever], kept: Sequence[np.ndarray]) -> Iterator[None]:
    """Of each lever only some groups are left inside. kept: (groups) bool each"""
    with contextlib.ExitStack() as stack:
        for lever, keep in zip(levers, kept):
            stack.enter_context(lever.without(~keep))
        yield
