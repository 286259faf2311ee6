"""Levers: what a run's strengths can be turned by, one for each parameter with groups, or family of coupled groups.

A lever scales the strengths of its groups, says how long each group is, and ends them: what is zero then stays zero, the
rest is trained on without a penalty.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sslnet.solver.coupled_groups import ROWS
from sslnet.solver.update_rules import SGD, Nesterov, Update
from sslnet.sparsity.groups import tiles_of

if TYPE_CHECKING:
    from sslnet.solver.coupled_groups import CoupledUpdate
    from sslnet.solver.solver import Solver
    from sslnet.sparsity.coupled_penalty import GroupPart
    from sslnet.sparsity.penalties import Penalty

FOREVER = 1e30
"""Strength of groups that are to stay zero."""


class Lever(ABC):
    """The groups of one penalty. Subclasses are final.

    updates  of the parameters in which the groups lie
    makers   those of weights by which layers make what the groups stand for; not those which only read it
    ended    whether ``end`` was called
    """

    def __init__(self, updates: Sequence[Update], makers: Sequence[Update]) -> None:
        self.updates, self.makers = list(updates), list(makers)
        self.ended = False

    @property
    def layers(self) -> set[str]:
        """Names of the layers that lose channels, or columns, with the groups."""
        return {update.param.layer.name for update in self.makers}

    @property
    def arrays(self) -> list[np.ndarray]:
        return [update.param.blob.data for update in self.updates]

    @abstractmethod
    def scale(self, factor: float) -> None:
        """Multiplies the strengths that the definitions ask for by ``factor``, > 0; of a lever that has ended nothing."""

    @abstractmethod
    def norms(self) -> np.ndarray:
        """(groups) float64: Euclidean norm of each group."""

    @abstractmethod
    def strengths(self) -> np.ndarray:
        """(groups): as the definitions have them."""

    @property
    @abstractmethod
    def sizes(self) -> list[int]:
        """How many groups each kind has."""

    def first(self, part: float) -> np.ndarray:
        """(groups) bool: the first ones of each kind, one at least.  part: 0 to 1"""
        return np.concatenate([np.arange(size) < max(1, math.ceil(part * size)) for size in self.sizes])

    @property
    def count(self) -> int:
        return sum(self.sizes)

    @abstractmethod
    def clear(self, gone: np.ndarray) -> None:
        """Sets groups to zero.  gone: (groups) bool"""

    @abstractmethod
    def end(self, solver: Solver) -> None:
        """Zeros stay zero from here on, the rest is trained without penalty."""

    def speeds(self, rate: float) -> np.ndarray | None:
        """(groups) by how much the penalty shortens each in an iteration, at the strengths of the definitions and the
        learning rate ``rate``; None for rules whose steps differ from weight to weight."""
        first = self.updates[0]
        if not isinstance(first, SGD | Nesterov):
            return None
        return rate * first.param.lr_mult / (1 - first.solver.momentum) * self.strengths()

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


class OwnLever(Lever):
    """The groups that lie in one parameter, and the biases which they take along."""

    def __init__(self, update: Update) -> None:
        makers = [update] if update.param.index == 0 else []
        super().__init__([update, *([update.bias] if update.bias is not None else [])], makers)
        assert update.penalty is not None
        self.penalty: Penalty = update.penalty
        self.base = np.repeat([tiling.strength for tiling in self.penalty.tilings], self.sizes)

    def scale(self, factor: float) -> None:
        if not self.ended:
            self.penalty.scale(factor)

    def norms(self) -> np.ndarray:
        data, bias = self.arrays[0], self.arrays[1] if len(self.arrays) > 1 else None
        found = [self.penalty.norms(data, k, bias).reshape(-1) for k in range(len(self.penalty.tilings))]
        return np.concatenate(found).astype(np.float64)

    def strengths(self) -> np.ndarray:
        return self.base

    @property
    def sizes(self) -> list[int]:
        return [math.prod(panels.tiles) for panels in self.penalty.panels]

    def clear(self, gone: np.ndarray) -> None:
        matrix = self.arrays[0].reshape(self.penalty.shape)
        start = 0
        for tiling, panels in zip(self.penalty.tilings, self.penalty.panels):
            down, along = panels.tiles
            flags = gone[start : start + down * along]
            start += down * along
            matrix.reshape(down, tiling.height, along, tiling.width)[...] *= ~flags.reshape(down, 1, along, 1)
            if tiling.bias:
                self.arrays[1].reshape(-1)[flags] = 0

    def end(self, solver: Solver) -> None:
        self.ended = True
        solver.keep_zeros(self.updates)


class SharedLever(Lever):
    """A family of coupled groups."""

    def __init__(self, coupled: CoupledUpdate, index: int) -> None:
        self.family = coupled.penalty.families[index]
        members = [coupled.members[part.index] for part in self.family.parts]
        pairs = [(part, update) for part, update in zip(self.family.parts, members) if update.param.index == 0]
        super().__init__(members, [update for part, update in pairs if _makes(part, update)])
        self.base = self.family.strengths
        self._shapes = [coupled.penalty.shapes[part.index] for part in self.family.parts]

    @property
    def layers(self) -> set[str]:
        return super().layers | set(self.family.makers)

    def _matrices(self) -> list[np.ndarray]:
        return [array.reshape(shape) for array, shape in zip(self.arrays, self._shapes)]

    def scale(self, factor: float) -> None:
        if not self.ended:
            self.family.strengths = self.base * factor

    def norms(self) -> np.ndarray:
        count, matrices = len(self.base), self._matrices()
        return np.sqrt(sum(part.squares(matrix, count) for part, matrix in zip(self.family.parts, matrices)))

    def strengths(self) -> np.ndarray:
        return self.base

    @property
    def sizes(self) -> list[int]:
        return [len(self.base)]

    def clear(self, gone: np.ndarray) -> None:
        for part, matrix in zip(self.family.parts, self._matrices()):
            part.scale(matrix, np.where(gone, 0.0, 1.0))

    def end(self, solver: Solver) -> None:
        self.ended = True
        self.family.strengths = np.where(self.norms() > 0, 0.0, FOREVER)


def _makes(part: GroupPart, update: Update) -> bool:
    """Whether the tiles of weights are those of outputs."""
    tiles = tiles_of(update.param)
    return (part.height, part.width) in [tiles[name] for name in ROWS if name in tiles]


def find_levers(solver: Any) -> list[Lever]:
    """All that act by proximal steps on parameters which are trained."""
    own = [u for u in solver.updates if u.prox is not None and u.param.lr_mult]
    shared = [(coupled, k) for coupled in solver.coupled for k in range(len(coupled.penalty.families))]
    return [*(OwnLever(update) for update in own), *(SharedLever(coupled, k) for coupled, k in shared)]


@contextlib.contextmanager
def thinned(levers: Sequence[Lever], kept: Sequence[np.ndarray]) -> Iterator[None]:
    """Of each lever only some groups are left inside. kept: (groups) bool each"""
    with contextlib.ExitStack() as stack:
        for lever, keep in zip(levers, kept):
            stack.enter_context(lever.without(~keep))
        yield
