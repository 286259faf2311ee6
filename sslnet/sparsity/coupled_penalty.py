"""Group lasso over groups that lie in several parameters: filters which the net ties together, with all that follows them.

A family is what one group of a prototxt asks for: the channels of a blob and of those tied to it (``sslnet.sparsity.channel_dependencies``), one
group each, with every row (or tile) of a parameter that makes the channel, its biases and followers where asked for, and
for NEURON what reads it. A parameter may have rows in one family and columns in another: the prox of the sum is found by
block-coordinate ascent of its dual, as in ``sslnet.sparsity.penalties``.

    minimise over z   sum of ||z - x||^2 / (2 step) + sum over groups of strength * ||z of the group||

Where the steps inside a group differ (lr_mult, adaptive rules), z = x t / (t + step strength) with the t > 0 that solves
sum of x^2 / (t + step strength)^2 = 1, and z = 0 where there is none.

Ref: Wen et al. 2016, section 3.2 (filters and channels together); Wright, Nowak, Figueiredo 2009 (the equation for t)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sslnet.kernels.optim.prox import LEAST
from sslnet.sparsity.penalties import MAX_SWEEPS, TOLERANCE

Steps = Sequence[float | np.ndarray]
"""For each parameter one step, or one for each of its values; those below LEAST are taken as LEAST."""
NEWTON = 60
CLOSE = 1e-7


@dataclass(frozen=True)
class GroupPart:
    """What groups hold of one parameter, as tiles of its matrix.

    index   which of the penalty's parameters
    height, width   of a tile
    groups  (tiles down * tiles along) the group of each tile, -1 for tiles in none
    """

    index: int
    height: int
    width: int
    groups: np.ndarray

    def tiles(self, matrix: np.ndarray) -> np.ndarray:
        """The matrix as (tiles down, height, tiles along, width)."""
        rows, columns = matrix.shape
        return matrix.reshape(rows // self.height, self.height, columns // self.width, self.width)

    def squares(self, matrix: np.ndarray, count: int) -> np.ndarray:
        """(count) float64: of each group the sum of the squares of its tiles here."""
        tiles = self.tiles(matrix)
        sums = np.einsum("ahbw,ahbw->ab", tiles, tiles, dtype=np.float64, casting="same_kind").reshape(-1)
        inside = self.groups >= 0
        return np.bincount(self.groups[inside], sums[inside], minlength=count)

    def spread(self, values: np.ndarray, outside: float) -> np.ndarray:
        """(tiles down, 1, tiles along, 1): the value of each tile's group; ``outside`` for tiles in none."""
        return np.where(self.groups >= 0, values[self.groups], outside)

    def scale(self, matrix: np.ndarray, factors: np.ndarray) -> None:
        """matrix *= the factor of each tile's group.  [overwrites matrix]"""
        tiles = self.tiles(matrix)
        tiles *= self.by_tile(factors, 1.0, tiles)

    def by_tile(self, values: np.ndarray, outside: float, tiles: np.ndarray) -> np.ndarray:
        down, _, along, _ = tiles.shape
        return self.spread(values, outside).reshape(down, 1, along, 1).astype(tiles.dtype)


@dataclass
class Family:
    """Groups over several parameters, of which no two share a value.

    name       for reports
    parts      what they hold
    strengths  (groups) float64
    own        whether they lie in one parameter, or it and its bias, and are here because coupled groups reach into it
    makers     names of the layers whose channels go with the groups, whether or not their weights belong to them
    """

    name: str
    parts: list[GroupPart]
    strengths: np.ndarray
    own: bool = False
    makers: tuple[str, ...] = ()
    duals: list[np.ndarray] = field(default_factory=list)
    """One matrix a part, while the penalty has several families."""

    def norms(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        """Euclidean norm of each group."""
        count = len(self.strengths)
        return np.sqrt(sum(part.squares(matrices[part.index], count) for part in self.parts))

    def prox(self, matrices: Sequence[np.ndarray], steps: Steps) -> np.ndarray:
        """The prox of this family alone; returns which groups are zero.  [overwrites matrices]"""
        own = [steps[part.index] for part in self.parts]
        if all(isinstance(step, float) and step == own[0] for step in own):
            norms, thresholds = self.norms(matrices), own[0] * self.strengths
            alive = norms > thresholds
            factors = np.where(alive, 1 - thresholds / np.where(alive, norms, 1), 0.0)
            for part in self.parts:
                part.scale(matrices[part.index], factors)
            return ~alive
        return self._prox_by_steps(matrices, steps)

    def _prox_by_steps(self, matrices: Sequence[np.ndarray], steps: Steps) -> np.ndarray:
        roots = np.zeros(len(self.strengths))
        alive = self._sums(matrices, steps, roots)[0] > 1
        alive |= self.strengths == 0
        search = alive & (self.strengths > 0)
        for _ in range(NEWTON):  # of 1 / sqrt(sum) = 1, nearly a straight line: few steps, all from the left
            total, slope = self._sums(matrices, steps, roots)
            with np.errstate(divide="ignore", invalid="ignore"):
                moves = np.where(search, total * (np.sqrt(total) - 1) / slope, 0.0)
            moves = np.where(np.isfinite(moves), moves, 0.0)
            roots = np.maximum(roots + moves, 0.0)
            if (np.abs(moves) <= CLOSE * roots).all():
                break
        for part in self.parts:
            matrix, step = matrices[part.index], steps[part.index]
            tiles = part.tiles(matrix)
            t = part.by_tile(roots, 1.0, tiles)
            pull = self._pull(part, step, tiles)
            kept = part.by_tile(alive.astype(float), 1.0, tiles) > 0
            with np.errstate(divide="ignore", invalid="ignore"):
                factors = np.where(pull == 0, 1, t / (t + pull))
            tiles *= np.where(kept, factors, 0)
        return ~alive

    def _sums(self, matrices: Sequence[np.ndarray], steps: Steps, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each group sum of x^2 / (t + pull)^2 and sum of x^2 / (t + pull)^3, float64."""
        count = len(self.strengths)
        sums = [np.zeros(count), np.zeros(count)]
        for part in self.parts:
            inside = part.groups >= 0
            tiles = part.tiles(matrices[part.index]).astype(np.float64)
            bottom = part.by_tile(roots, 1.0, tiles) + self._pull(part, steps[part.index], tiles)
            with np.errstate(divide="ignore", invalid="ignore"):
                square = np.where(tiles == 0, 0.0, (tiles / bottom) ** 2)
                cube = np.where(tiles == 0, 0.0, square / bottom)
            for total, values in zip(sums, (square, cube)):
                by_tile = values.sum(axis=(1, 3)).reshape(-1)
                total += np.bincount(part.groups[inside], by_tile[inside], minlength=count)
        return sums[0], sums[1]

    def _pull(self, part: GroupPart, step: float | np.ndarray, tiles: np.ndarray) -> np.ndarray:
        """step * strength for each value, or each tile."""
        strengths = part.by_tile(self.strengths, 0.0, tiles)
        return strengths * step if isinstance(step, float) else strengths * part.tiles(step).astype(tiles.dtype)


class CoupledPenalty:
    """The sum of the group norms of several families, and its proximal operator.

    shapes     (rows, columns) of each parameter's matrix
    families   over these parameters
    tolerance  of the prox of several families: the largest change of a dual in a sweep, by the strength
    """

    def __init__(
        self, shapes: Sequence[tuple[int, int]], families: Sequence[Family], tolerance: float = TOLERANCE
    ) -> None:
        self.shapes = list(shapes)
        self.families = list(families)
        self.tolerance = tolerance
        self.sweeps = 0
        self._strengths: list[np.ndarray] = []

    def scale(self, factor: float) -> None:
        """Multiplies the strengths that it was made with by ``factor``, > 0."""
        self._strengths = self._strengths or [family.strengths for family in self.families]
        for family, strengths in zip(self.families, self._strengths):
            family.strengths = strengths * factor

    def value(self, arrays: Sequence[np.ndarray]) -> float:
        matrices = self._matrices(arrays)
        return float(sum(family.strengths @ family.norms(matrices) for family in self.families))

    def norms(self, arrays: Sequence[np.ndarray], index: int) -> np.ndarray:
        """Euclidean norm of each group of a family."""
        return self.families[index].norms(self._matrices(arrays))

    def prox(self, arrays: Sequence[np.ndarray], steps: Steps) -> None:
        """The arrays become the z of the problem above.  [overwrites arrays]"""
        matrices = self._matrices(arrays)
        steps = self._step_matrices(steps)
        if len(self.families) == 1:
            self.families[0].prox(matrices, steps)
            return
        self._ready_duals(matrices)
        for family in self.families:
            for part, dual in zip(family.parts, family.duals):
                matrices[part.index][...] -= steps[part.index] * dual
        dead = [np.zeros(0, np.bool_)] * len(self.families)
        for self.sweeps in range(1, MAX_SWEEPS + 1):
            change = 0.0
            for k, family in enumerate(self.families):
                dead[k], moved = self._ascend(family, matrices, steps)
                change = max(change, moved)
            if change <= self.tolerance:
                break
        for family, zero in zip(self.families, dead):  # what rounding leaves where the optimum is exactly zero
            for part in family.parts:
                part.scale(matrices[part.index], np.where(zero, 0.0, 1.0))

    def _ascend(self, family: Family, matrices: list[np.ndarray], steps: Steps) -> tuple[np.ndarray, float]:
        """The best duals of one family, all others as they are: (groups that are zero, largest change by the strength)."""
        before = {}
        for part, dual in zip(family.parts, family.duals):
            matrices[part.index][...] += steps[part.index] * dual
            before[part.index] = matrices[part.index].copy()
        zero = family.prox(matrices, steps)
        moved = np.zeros(len(family.strengths))
        for k, part in enumerate(family.parts):
            new = (before[part.index] - matrices[part.index]) / steps[part.index]
            moved += part.squares(new - family.duals[k], len(moved))
            family.duals[k] = new
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(family.strengths > 0, np.sqrt(moved) / family.strengths, 0.0)
        return zero, float(relative.max(initial=0.0))

    def state(self) -> list[np.ndarray]:
        """The duals, family by family; none while none are needed."""
        return [dual for family in self.families for dual in family.duals]

    def set_state(self, duals: Sequence[np.ndarray]) -> None:
        """Takes over duals of the right sizes; without them the next prox starts from zeros."""
        shapes = [self.shapes[part.index] for family in self.families for part in family.parts]
        fit = [dual.size for dual in duals] == [rows * columns for rows, columns in shapes]
        left = iter([np.array(dual).reshape(shape) for dual, shape in zip(duals, shapes)] if fit else [])
        for family in self.families:
            family.duals = [next(left) for _ in family.parts] if fit else []

    def _ready_duals(self, matrices: Sequence[np.ndarray]) -> None:
        for family in self.families:
            family.duals = family.duals or [np.zeros_like(matrices[part.index]) for part in family.parts]

    def _matrices(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [array.reshape(shape) for array, shape in zip(arrays, self.shapes)]

    def _step_matrices(self, steps: Steps) -> list[Any]:
        least = float(LEAST)
        return [
            max(step, least) if isinstance(step, float) else np.maximum(step.reshape(shape), least)
            for step, shape in zip(steps, self.shapes)
        ]
