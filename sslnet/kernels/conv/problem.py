"""The problem a loop nest is chosen for, and the interface of the loop nests that compete for it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

from sslnet.kernels.conv.cost import costs_of
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.packing import WINDOW_BYTES, threads_for
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.conv.taps import TapGeometry, lower_forward, lower_input_grad
from sslnet.kernels.simd.vector import VectorUnit, vector_unit

ROW_ENDS = 2
"""Pixels whose time the ends of a row cost in a pointwise convolution, roughly."""

LONG = 4
"""Vectors of a row that need not become longer."""

Tile = TypeVar("Tile")
"""The free parameters of a loop nest: the shape of its micro-kernel, and its blocking."""


class Direction(Enum):
    """The passes of a convolution."""

    FORWARD = "forward"
    INPUT_GRAD = "input gradient"
    WEIGHT_GRAD = "weight gradient"


@dataclass(frozen=True, eq=False)
class ConvProblem:
    """One pass of a convolution on a vector unit.

    kept       the filters and columns of the weight matrix that are used, the others count as zero; None: all
    relu       fused ReLU: negative outputs become 0
    winograd   whether Winograd's transforms may be used, whose rounding errors are about ten times larger
    lasting    False: packed weights are valid only until another plan packs, so that plans with large weights share
               memory

    raises ShapeError when the pattern does not match the shape of the weights
    """

    direction: Direction
    geometry: ConvGeometry
    unit: VectorUnit = field(default_factory=vector_unit)
    kept: SparsityPattern | None = None
    relu: bool = False
    winograd: bool = True
    lasting: bool = True

    def __post_init__(self) -> None:
        if self.kept is not None:
            self.kept.check(self.geometry)

    @property
    def backward(self) -> bool:
        """Whether the pass is the gradient of the input."""
        return self.direction is Direction.INPUT_GRAD

    @cached_property
    def lowering(self) -> TapGeometry:
        """The pass as sums over taps; for the weight gradient, the taps of the forward pass.

        Where it is faster, the planes of a pointwise convolution become few long rows.
        """
        g = self.geometry
        if g.pointwise and self.direction is not Direction.WEIGHT_GRAD and costs_of(self.unit).long_rows:
            g = g.in_rows(long_rows(g, g.group_filters if self.backward else g.group_channels, self.unit.lanes))
        return (lower_input_grad if self.backward else lower_forward)(g)


def long_rows(geometry: ConvGeometry, channels: int, lanes: int) -> int:
    """The number of rows in which a pointwise convolution runs over each plane.

    Few rows are long and fill tiles and vectors well; enough rows give all threads equal parts, and a row of all source
    channels stays in the cache. Rows that are long and whole already stay as they are.
    """
    g = geometry
    if g.width % lanes == 0 and g.width >= LONG * lanes:
        return g.height
    pixels, threads = g.height * g.width, threads_for(g.flops // 2)

    def cost(rows: int) -> tuple[float, int]:
        width, units = pixels // rows, rows * g.batch
        idle = -(-units // threads) * threads / units
        return idle * (-(-width // lanes) * lanes / width) * (1 + ROW_ENDS / width), rows

    small = [n for n in range(1, math.isqrt(pixels) + 1) if pixels % n == 0]
    fitting = [n for n in {*small, *(pixels // n for n in small)} if 4 * channels * pixels <= n * WINDOW_BYTES]
    return min(fitting, key=cost, default=g.height)


class LoopCandidate(ABC, Generic[Tile]):
    """A loop nest that may be chosen for a problem; choose.py lists all of them."""

    DIRECTIONS: ClassVar[tuple[Direction, ...]]
    """The passes that this loop nest can run."""

    def __init__(self, problem: ConvProblem) -> None:
        self.problem = problem
        self.geometry = problem.geometry
        self.unit = problem.unit
        self.costs = costs_of(problem.unit)

    @abstractmethod
    def suits(self) -> bool:
        """Whether the loop nest can compute the problem; the other methods may be called only if it can."""

    @abstractmethod
    def tiles(self) -> Iterator[Tile]:
        """The tiles that are worth trying."""

    @abstractmethod
    def cycles(self, tile: Tile) -> float:
        """Estimated cycles of one core for one image."""

    @abstractmethod
    def loop(self, tile: Tile) -> PackedLoop | WeightGradLoop:
        """The loop nest itself; its micro-kernels are compiled now, or loaded from the cache."""
