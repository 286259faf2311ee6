"""One penalty on one kind of groups: which values of which parameters belong to each group, and what all penalties
share.

A penalty is a file beside this one with a subclass of ``GroupPenalty``, and one line in ``sslnet.sparsity.penalties``.
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
"""One for each parameter."""
Steps = Sequence[float | np.ndarray]
"""For each parameter one step size, or a matrix with one for each of its values; all at least LEAST."""
FOREVER = 1e30
"""Strength of groups that are to stay zero."""


@dataclass(frozen=True)
class Tiling:
    """Groups of height x width that cover a matrix, under a penalty of this strength.

    bias      whether each group includes one more value, its own element of a vector beside the matrix
    penalty   its name in ``sslnet.sparsity.penalties.PENALTIES``
    settings  its parameters by name
    unit      what the strength was multiplied by for the groups' size
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
        """Whether each of these groups lies inside one of the other's."""
        return other.height % self.height == 0 and other.width % self.width == 0 and not self.bias


@dataclass(frozen=True)
class GroupPart:
    """What groups hold of one parameter, as tiles of its matrix.

    index   which of the penalty's parameters
    height, width   of a tile
    groups  (tiles down * tiles along) the group of each tile, -1 for tiles in none; None: each is a group, in their order
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
        """(count) float64: of each group the sum of the squares of its tiles here."""
        tiles = self.tiles(matrix)
        sums = np.einsum("ahbw,ahbw->ab", tiles, tiles, dtype=np.float64, casting="same_kind").reshape(-1)
        return self.sums(sums, count)

    def sums(self, values: np.ndarray, count: int) -> np.ndarray:
        """(count): of each group the sum of the values of its tiles."""
        if self.groups is None:
            return values
        inside = self.groups >= 0
        return np.bincount(self.groups[inside], values[inside], minlength=count)

    def by_tile(self, values: np.ndarray, outside: Any, tiles: np.ndarray) -> np.ndarray:
        """(tiles down, 1, tiles along, 1), of the tiles' dtype: the value of each tile's group, or ``outside``."""
        down, _, along, _ = tiles.shape
        found = values if self.groups is None else np.where(self.groups >= 0, values[self.groups], outside)
        return found.reshape(down, 1, along, 1).astype(tiles.dtype)

    def scale(self, matrix: np.ndarray, factors: np.ndarray) -> None:
        """matrix *= the factor of each tile's group.  [overwrites matrix]"""
        tiles = self.tiles(matrix)
        tiles *= self.by_tile(factors, 1.0, tiles)


class GroupPenalty(ABC):
    """A penalty on groups of which no two share a value. Subclasses are final and stand in ``PENALTIES``.

    name       for reports
    parts      what the groups hold of each parameter, at most one part for each
    strengths  (groups) float64
    coupled    whether it is one of groups that channels joined by the graph share
    makers     names of the layers whose channels the coupled groups are, whether or not their weights belong to them
    unit       (groups) or one: what the strengths were multiplied by for the groups' size
    settings   the parameters named in SETTINGS
    """

    SETTINGS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """The fields of GroupLassoSpec that the penalty needs, each with the values between which it must lie."""
    CONVEX: ClassVar[bool] = True
    """Only of convex penalties the prox of a sum can be found, where groups of several kinds overlap."""
    BY_NORM: ClassVar[bool] = True
    """Whether all that counts of a group is its norm, on which the penalty begins to pull with its whole strength at
    zero."""
    SUBGRADIENT: ClassVar[bool] = False
    """Whether there are SUBGRADIENT updates of it."""

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
        """The strengths now; as the definitions have them."""
        self.unit = unit
        self.settings = settings or {}
        self.duals: list[np.ndarray] = []
        """One matrix a part, where several kinds of groups overlap."""

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.strengths)

    def scale(self, factor: float) -> None:
        """Multiplies the strengths that it was made with by ``factor``, > 0."""
        if self.base.strides == (0,):  # all are the same number, which is kept once
            self.strengths = np.broadcast_to(self.base[0] * factor, self.base.shape)
        else:
            self.strengths = self.base * factor

    def norms(self, matrices: Matrices) -> np.ndarray:
        """(groups) float64: Euclidean norm of each group."""
        return np.sqrt(sum(part.squares(matrices[part.index], self.count) for part in self.parts))

    @abstractmethod
    def value(self, matrices: Matrices) -> float:
        """The penalty: a sum over the groups."""

    @property
    def longest_step(self) -> float:
        """Only of shorter steps than this every stationary point is a fixed point of the proximal step."""
        return math.inf

    def idle(self, matrices: Matrices) -> str:
        """Why the penalty does nothing to these weights, in words; "" where it does."""
        return ""

    @abstractmethod
    def prox(self, matrices: Matrices, steps: Steps) -> list[np.ndarray]:
        """The matrices become the z that minimise sum of (z - x)^2 / (2 * step) + value(z).  [overwrites matrices]

        returns for each part what of its tiles is zero; spreads to (tiles down, height, tiles along, width)
        """

    @abstractmethod
    def pulls(self, matrices: Matrices) -> np.ndarray:
        """(groups) by how much a step of 1 shortens each group at most, nothing else moving it."""

    def freeze(self, matrices: Matrices) -> None:
        """Ends the penalty: from here on its prox keeps zero what is zero, and leaves the rest as it is."""
        self.strengths = self.base = np.where(self.norms(matrices) > 0, 0.0, FOREVER)

    def clear(self, matrices: Matrices, gone: np.ndarray) -> None:
        """Sets groups to zero.  [overwrites matrices]  gone: (groups) bool"""
        for part in self.parts:
            part.scale(matrices[part.index], np.where(gone, 0.0, 1.0))

    def copy(self) -> Self:
        """The same, with duals of its own."""
        other = copy.copy(self)
        other.duals = []
        return other


def one_step(parts: Sequence[GroupPart], steps: Steps) -> float | None:
    """The step that all values of all parts have; None where they differ."""
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

    whose left side is found by Newton's method on 1 / sqrt(sum) = 1, concave in r: from a point left of the root it
    climbs to it without passing it. In float64 for matrices of any precision.

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

    def alive(self) -> np.ndarray:
        """(groups) whether zero is no minimum of the group's problem beside zero."""
        return (self.sums(np.zeros(len(self.strengths)))[0] > 1) | (self.strengths == 0)

    def solve(self, search: np.ndarray) -> np.ndarray:
        """(groups) the smallest root of each group that is to be searched; 0 of the others; infinite where there is
        none at which the penalty still pulls."""
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
        """Of each group sum of (x / bottom)^2, and minus half of its derivative, float64."""
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
        """The bottom above for each value of a part, or each tile; and the step * strength in it."""
        own, step = part.by_tile(roots, 1.0, tiles), self.step(part, tiles)
        pull = part.by_tile(self.strengths, 0.0, tiles) * step
        return (own * (1 - self.concavity * step) if self.concavity else own) + pull, pull

    def step(self, part: GroupPart, tiles: np.ndarray) -> float | np.ndarray:
        step = self.steps[part.index]
        return step if isinstance(step, float) else part.tiles(step).astype(tiles.dtype)

    def shrink(self, roots: np.ndarray, zero: np.ndarray) -> list[np.ndarray]:
        """The matrices become z: groups zero, or as they are where the root is infinite.  [overwrites matrices]

        zero  (groups) bool;  returns as ``GroupPenalty.prox``
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
    """For each part whether its tiles are of groups that are zero, as (tiles down, 1, tiles along, 1). zero: (groups)"""
    found = []
    for part in parts:
        tiles = part.tiles(matrices[part.index])
        found.append(part.by_tile(zero.astype(np.float64), 0.0, tiles) > 0)
    return found
