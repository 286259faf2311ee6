"""GroupPenalty, the base class of penalties on groups of one kind, and the description of such groups.

To add a penalty, write a subclass of ``GroupPenalty`` in a file of its own in this package, and add a line to
``sslnet.sparsity.penalties``.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

Matrices = Sequence[np.ndarray]
"""Matrices of the penalised parameters, one per parameter."""
Steps = Sequence[float | np.ndarray]
"""Step sizes: for each parameter one number, or a matrix with one for each of its values; all at least LEAST."""
FOREVER = 1e30
"""Strength of groups frozen at zero."""


@dataclass(frozen=True)
class Tiling:
    """Groups of height x width that cover a matrix, and the penalty on them.

    bias      whether each group also includes one element of the bias vector
    penalty   name of the penalty in ``sslnet.sparsity.penalties.PENALTIES``
    settings  parameters of the penalty by name
    unit      factor for the group size that the strength includes
    """

    height: int
    width: int
    strength: float
    bias: bool = False
    penalty: str = "GROUP_LASSO"
    settings: tuple[tuple[str, float], ...] = ()
    unit: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.height} x {self.width}"

    def within(self, other: Tiling) -> bool:
        """Whether each group of this tiling lies inside a group of the other tiling."""
        return other.height % self.height == 0 and other.width % self.width == 0 and not self.bias


@dataclass(frozen=True)
class GroupPart:
    """The part of the groups that lies in one parameter, as tiles of its matrix.

    index   number of the parameter among those of the penalty
    height, width   size of a tile
    groups  (tiles down * tiles along) group of each tile, -1 for tiles in no group; None: tile k is group k
    """

    index: int
    height: int
    width: int
    groups: np.ndarray | None = None

    def tiles(self, matrix: np.ndarray) -> np.ndarray:
        """The matrix as (tiles down, height, tiles along, width)."""
        rows, columns = matrix.shape
        return matrix.reshape(rows // self.height, self.height, columns // self.width, self.width)

    def squares(self, matrix: np.ndarray, count: int) -> np.ndarray:
        """(count) float64: sum of squares of each group's values in this part."""
        tiles = self.tiles(matrix)
        sums = np.einsum("ahbw,ahbw->ab", tiles, tiles, dtype=np.float64, casting="same_kind").reshape(-1)
        return self.sums(sums, count)

    def sums(self, values: np.ndarray, count: int) -> np.ndarray:
        """(count): sum over the tiles of each group, given one value per tile."""
        if self.groups is None:
            return values
        inside = self.groups >= 0
        return np.bincount(self.groups[inside], values[inside], minlength=count)

    def by_tile(self, values: np.ndarray, outside: Any, tiles: np.ndarray) -> np.ndarray:
        """Value of each tile's group, or ``outside`` for tiles in no group: (tiles down, 1, tiles along, 1), dtype of
        ``tiles``."""
        down, _, along, _ = tiles.shape
        found = values if self.groups is None else np.where(self.groups >= 0, values[self.groups], outside)
        return found.reshape(down, 1, along, 1).astype(tiles.dtype)

    def scale(self, matrix: np.ndarray, factors: np.ndarray) -> None:
        """Multiplies each tile by the factor of its group.  [overwrites matrix]"""
        tiles = self.tiles(matrix)
        tiles *= self.by_tile(factors, 1.0, tiles)


class GroupPenalty(ABC):
    """A penalty on disjoint groups of one kind. The subclasses are listed in ``PENALTIES``.

    name       name used in reports
    parts      the parts of the groups, at most one for each parameter
    strengths  (groups) float64
    coupled    whether the groups span several layers, whose channels the graph joins
    makers     names of the layers that produce the grouped channels, whether or not the groups include their weights
    unit       (groups) or scalar: factor for the group size that the strengths include
    settings   values of the fields named in SETTINGS
    """

    SETTINGS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """The fields of GroupLassoSpec that the penalty needs, each with the exclusive bounds of its value."""
    CONVEX: ClassVar[bool] = True
    """Whether the penalty is convex; only then can it be summed with penalties on overlapping groups."""
    BY_NORM: ClassVar[bool] = True
    """Whether the penalty is a function of each group's norm, with derivative ``strength`` at norm zero."""
    SUBGRADIENT: ClassVar[bool] = False
    """Whether the penalty supports SUBGRADIENT updates."""

    def __init__(
        self,
        name: str,
        parts: Sequence[GroupPart],
        strengths: np.ndarray,
        *,
        coupled: bool = False,
        makers: tuple[str, ...] = (),
        unit: float | np.ndarray = 1.0,
        settings: Mapping[str, float] | None = None,
    ) -> None:
        self.name, self.parts, self.coupled, self.makers = name, list(parts), coupled, makers
        self.strengths = self.base = strengths
        """Current strengths, and ``base``, the strengths from the definitions."""
        self.unit = unit
        self.settings = settings or {}
        self.duals: list[np.ndarray] = []
        """Dual variables, one matrix per part, where groups of several kinds overlap; else empty."""

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.strengths)

    def scale(self, factor: float) -> None:
        """Sets the strengths to ``base`` times ``factor``, > 0."""
        if self.base.strides == (0,):  # all strengths are the same number, stored once
            self.strengths = np.broadcast_to(self.base[0] * factor, self.base.shape)
        else:
            self.strengths = self.base * factor

    def norms(self, matrices: Matrices) -> np.ndarray:
        """Euclidean norm of each group: (groups) float64."""
        return np.sqrt(sum(part.squares(matrices[part.index], self.count) for part in self.parts))

    def value(self, matrices: Matrices) -> float:
        """Value of the penalty: a sum over the groups."""
        return self.value_at(self.norms(matrices), matrices)

    @abstractmethod
    def value_at(self, norms: np.ndarray, matrices: Matrices) -> float:
        """Value of the penalty, given also the groups' norms, so that they are computed once.  norms: (groups)"""

    @property
    def longest_step(self) -> float:
        """Upper bound of step sizes for which every stationary point is a fixed point of the proximal step."""
        return math.inf

    def idle(self, matrices: Matrices) -> str:
        """Explanation why the penalty has no effect on these weights; "" if it has an effect."""
        return ""

    @abstractmethod
    def prox(self, matrices: Matrices, steps: Steps) -> list[np.ndarray]:
        """Replaces the matrices x by the z that minimise sum of (z - x)^2 / (2 * step) + value(z).  [overwrites matrices]

        returns for each part which of its values are zero, broadcastable to (tiles down, height, tiles along, width)
        """

    @abstractmethod
    def pulls(self, matrices: Matrices) -> np.ndarray:
        """Maximum decrease of each group's norm by a proximal step of size 1 alone: (groups)."""

    def freeze(self, matrices: Matrices) -> None:
        """Ends the penalty: from now on its prox keeps zero groups at zero and leaves the others unchanged."""
        self.strengths = self.base = np.where(self.norms(matrices) > 0, 0.0, FOREVER)

    def clear(self, matrices: Matrices, gone: np.ndarray) -> None:
        """Sets groups to zero.  [overwrites matrices]  gone: (groups) bool"""
        for part in self.parts:
            part.scale(matrices[part.index], np.where(gone, 0.0, 1.0))

    def copy(self) -> Self:
        """A copy without dual variables."""
        other = copy.copy(self)
        other.duals = []
        return other


def one_step(parts: Sequence[GroupPart], steps: Steps) -> float | None:
    """The common step size of all values of all parts; None if step sizes differ."""
    own = [steps[part.index] for part in parts]
    first = own[0]
    return first if isinstance(first, float) and all(isinstance(s, float) and s == first for s in own) else None


# -- the norm of each group at the optimum, where steps differ inside groups -------------------------------------------

NEWTON = 60
CLOSE = 1e-7


class NormEquation:
    """The equation that the norm r of a group solves at the minimum of sum of (z - x)^2 / (2 step) + p(||z||).

    With p'(r) = strength - concavity * r,

        z = x * r / bottom,   bottom = (1 - concavity * step) * r + step * strength:   sum of (x / bottom)^2 = 1

    solved by Newton's method for 1 / sqrt(sum) = 1, whose left side is concave in r: from a point left of the root the
    iteration increases to the root without passing it. Computed in float64 for matrices of any precision.

    Ref: More and Sorensen 1983, eq. 3.10 (the form of the equation in which Newton's method is fast); Wright, Nowak,
    Figueiredo 2009 (the equation for the group lasso)
    """

    def __init__(
        self,
        parts: Sequence[GroupPart],
        strengths: np.ndarray,
        matrices: Matrices,
        steps: Steps,
        concavity: float = 0.0,
    ) -> None:
        self.parts, self.strengths, self.concavity = parts, strengths, concavity
        self.matrices, self.steps = matrices, steps

    def nonzero(self) -> np.ndarray:
        """(groups) bool: whether z = 0 is not a local minimum of the group's problem."""
        found: np.ndarray = (self.sums(np.zeros(len(self.strengths)))[0] > 1) | (self.strengths == 0)
        return found

    def solve(self, search: np.ndarray) -> np.ndarray:
        """(groups) smallest root for each group in ``search``, infinite if there is none up to strength / concavity;
        0 for the other groups."""
        roots = np.zeros(len(self.strengths))
        for _ in range(NEWTON):
            total, slope = self.sums(roots)
            with np.errstate(divide="ignore", invalid="ignore"):
                moves = np.where(search, total * (np.sqrt(total) - 1) / slope, 0.0)
            moves = np.where(np.isfinite(moves), moves, 0.0)
            if self.concavity:
                none = search & (((slope <= 0) & (total > 1)) | (roots + moves > self.strengths / self.concavity))
                search = search & ~none
                roots[none], moves[none] = np.inf, 0.0
            roots = np.maximum(roots + moves, 0.0)
            if (np.abs(moves) <= CLOSE * roots).all():
                break
        return roots

    def sums(self, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of (x / bottom)^2 for each group, and minus half of its derivative, float64."""
        count = len(self.strengths)
        sums = [np.zeros(count), np.zeros(count)]
        for part in self.parts:
            tiles = part.tiles(self.matrices[part.index]).astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                bottom, _ = self.bottom(part, roots, tiles)
                square = np.where(tiles == 0, 0.0, (tiles / bottom) ** 2)
                cube = np.where(tiles == 0, 0.0, square / bottom)
            if self.concavity:
                cube = cube * (1 - self.concavity * self.step(part, tiles))
            for total, values in zip(sums, (square, cube)):
                total += part.sums(values.sum(axis=(1, 3)).reshape(-1), count)
        return sums[0], sums[1]

    def bottom(self, part: GroupPart, roots: np.ndarray, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The denominator ``bottom`` for each value of a part, or each tile; and its term step * strength."""
        own, step = part.by_tile(roots, 1.0, tiles), self.step(part, tiles)
        pull = part.by_tile(self.strengths, 0.0, tiles) * step
        return (own * (1 - self.concavity * step) if self.concavity else own) + pull, pull

    def step(self, part: GroupPart, tiles: np.ndarray) -> float | np.ndarray:
        step = self.steps[part.index]
        return step if isinstance(step, float) else part.tiles(step).astype(tiles.dtype)

    def shrink(self, roots: np.ndarray, zero: np.ndarray) -> list[np.ndarray]:
        """Replaces the matrices x by z, given the norms; an infinite root leaves its group unchanged.  [overwrites matrices]

        zero  (groups) bool: groups to set to zero;  returns as ``GroupPenalty.prox``
        """
        flags = zero_tiles(self.parts, self.matrices, zero)
        for part, gone in zip(self.parts, flags):
            tiles = part.tiles(self.matrices[part.index])
            own = part.by_tile(roots, 1.0, tiles)
            with np.errstate(divide="ignore", invalid="ignore"):
                bottom, pull = self.bottom(part, roots, tiles)
                factors = np.where((pull == 0) | np.isinf(own), 1, own / bottom)
            tiles *= np.where(gone, 0, factors)
        return flags


def zero_tiles(parts: Sequence[GroupPart], matrices: Matrices, zero: np.ndarray) -> list[np.ndarray]:
    """For each part, whether each tile is in a zero group: (tiles down, 1, tiles along, 1). zero: (groups) bool"""
    found = []
    for part in parts:
        tiles = part.tiles(matrices[part.index])
        found.append(part.by_tile(zero.astype(np.float64), 0.0, tiles) > 0)
    return found
