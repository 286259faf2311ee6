"""The heuristic: of all loop nests and tiles that compute a problem, the one with the fewest estimated cycles.

The same problem gets the same loop nest in every run. Nothing is timed: that would cost compilation, and rounding could
differ from run to run. To add a loop nest, write its LoopCandidate and name it in CANDIDATES; the machine model of the
estimates is in cost.py.
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
"""All loop nests that compete; of equal estimates the first one is chosen."""


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
        """The loop nest itself: a PackedLoop, or a WeightGradLoop for the gradient of the weights."""
        return self.candidate.loop(self.tile)


def estimates(*problems: ConvProblem) -> Iterator[LoopChoice]:
    """Every loop nest that computes one of the problems, in every tile worth trying."""
    for kind in CANDIDATES:
        for problem in problems:
            candidate = kind(problem)
            if problem.direction in kind.DIRECTIONS and candidate.suits():
                yield from (LoopChoice(candidate, tile, candidate.cycles(tile)) for tile in candidate.tiles())


def choose(*problems: ConvProblem) -> LoopChoice:
    """The loop nest and tile with the fewest estimated cycles that compute one of the problems, for example a pass with
    all weights or with the weights of a pattern only."""
    return min(estimates(*problems), key=lambda choice: choice.cycles)
