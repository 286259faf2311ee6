"""The heuristic: of all loop nests and tiles that compute a problem, the one with the fewest estimated cycles.

The same problem gets the same loop nest in every run. Nothing is timed: a contest would cost compilation, and give other
rounding from run to run. To add a loop nest, write its LoopCandidate and name it in CANDIDATES; what the estimates assume
of the machine stands in cost.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sslnet.kernels.conv.candidates import FilterCandidate, PixelCandidate
from sslnet.kernels.conv.depthwise.candidates import DepthwiseCandidate, DepthwiseGradCandidate
from sslnet.kernels.conv.problem import ConvProblem, LoopCandidate
from sslnet.kernels.conv.sparse.candidates import (
    KeptFilterCandidate,
    KeptInputGradCandidate,
    KeptPixelCandidate,
    KeptWeightGradCandidate,
)
from sslnet.kernels.conv.weight_grad_candidates import FilterGradCandidate, PixelGradCandidate
from sslnet.kernels.conv.winograd.candidates import WinogradCandidate, WinogradGradCandidate

CANDIDATES: tuple[type[LoopCandidate[Any]], ...] = (
    DepthwiseCandidate,
    KeptFilterCandidate,
    KeptPixelCandidate,
    KeptInputGradCandidate,
    FilterCandidate,
    PixelCandidate,
    WinogradCandidate,
    DepthwiseGradCandidate,
    KeptWeightGradCandidate,
    FilterGradCandidate,
    PixelGradCandidate,
    WinogradGradCandidate,
)
"""Of equals the first one is chosen."""


@dataclass(frozen=True)
class LoopChoice:
    """A loop nest with a tile, and its estimated cycles for one image."""

    candidate: LoopCandidate[Any]
    tile: Any
    cycles: float

    @property
    def problem(self) -> ConvProblem:
        return self.candidate.problem

    def loop(self) -> Any:
        """The loop nest itself: a PackedLoop, or for the gradient of the weights a WeightGradLoop."""
        return self.candidate.loop(self.tile)


def estimates(*problems: ConvProblem) -> Iterator[LoopChoice]:
    """Every loop nest that computes one of the problems, in every tile worth trying."""
    for kind in CANDIDATES:
        for problem in problems:
            candidate = kind(problem)
            if problem.direction in kind.DIRECTIONS and candidate.suits():
                yield from (LoopChoice(candidate, tile, candidate.cycles(tile)) for tile in candidate.tiles())


def choose(*problems: ConvProblem) -> LoopChoice:
    """The cheapest way to solve one of the problems: a pass with all weights, say, or with those of a pattern alone."""
    return min(estimates(*problems), key=lambda choice: choice.cycles)
