"""The problem a loop nest is chosen for, and the interface of the loop nests that compete for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

from sslnet.kernels.conv.cost import costs_of
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.conv.taps import TapGeometry, lower_forward, lower_input_grad
from sslnet.kernels.simd.vector import VectorUnit, vector_unit

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
        """The pass as sums over taps; for the weight gradient, the taps of the forward pass."""
        return (lower_input_grad if self.backward else lower_forward)(self.geometry)


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
