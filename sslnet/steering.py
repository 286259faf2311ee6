"""Steering a run to a target: the strength of all penalties is turned while it trains, until the compacted net is small enough.

While the structure is learned, the part of the net that is left is led along target^(t / LEARN), t the part of the run
that has passed: where more is left the strengths grow, where less they shrink, by a little at each check. Once the
target is met, what is zero stays zero, the penalties go, and what is left of the run fine-tunes the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sslnet.compress.channels import NetChannels, find_channels
from sslnet.errors import RunError
from sslnet.net import Net

if TYPE_CHECKING:
    from sslnet.layers.base import Layer
    from sslnet.solver import Solver

LEARN = 0.6
"""Part of the run in which the structure is learned."""
CHECKS = 300
"""Checks in a run, as far as there are iterations."""
START = 0.3
"""Factor of the strengths at the beginning: all is alive then, and what dies first should not be chance."""
GAIN, MOST = 0.5, 0.035
"""Change of the factor's logarithm by that of what is left over what should be; and at most, at one check."""


@dataclass(frozen=True)
class Left:
    """What compaction would leave of a net: parts of its FLOPs and of its parameters, 0 to 1."""

    flops: float
    params: float


def left(net: Net) -> Left:
    """Of the net as it is now: without the channels that nobody needs, and the columns of weights that are zero.

    A net that would be cut in two has nothing left.
    """
    try:
        (view,) = find_channels([net])
    except RunError:
        return Left(0.0, 0.0)
    flops = params = 0.0
    all_flops = all_params = 0
    for i, layer in enumerate(net.layers):
        own = layer.flops(net.bottoms[i], net.tops[i])
        weights = layer.blobs[0].count if layer.blobs else 0
        others = sum(blob.count for blob in layer.blobs[1:])
        rows, matrix = _parts(view, i, layer)
        all_flops, all_params = all_flops + own, all_params + weights + others
        flops, params = flops + own * matrix, params + weights * matrix + others * rows
    return Left(flops / max(1, all_flops), params / max(1, all_params))


def _parts(view: NetChannels, i: int, layer: Layer) -> tuple[float, float]:
    """(part of the top channels that stay, part of the weight matrix that stays) of a layer."""
    if not view.tops[i] or not view.tops[i][0].size:
        return 1.0, 1.0
    kept = view.tops[i][0].needed
    rows = float(kept.mean())
    columns = _columns(layer, len(view.bottoms[i][0].needed)) if layer.blobs and view.bottoms[i] else None
    if columns is None:
        return rows, rows
    matrix, channel = columns
    needed = view.bottoms[i][0].needed[channel] & (matrix[kept] != 0).any(axis=0)
    return rows, rows * float(needed.mean())


def _columns(layer: Layer, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The weights as a matrix of one row a top channel, and the bottom channel that each column reads; None where columns
    do not belong to one channel each: convolutions with groups, other layers."""
    if layer.TYPE not in ("Convolution", "InnerProduct") or getattr(layer, "group", 1) > 1:
        return None
    weights = layer.blobs[0].data
    matrix = weights.T if getattr(layer, "transpose", False) else weights.reshape(len(weights), -1)
    if matrix.shape[1] % channels:
        return None
    return matrix, np.repeat(np.arange(channels), matrix.shape[1] // channels)


class Steering:
    """Turns a solver's strengths so that a net is left with ``target`` of what it had.

    of      "flops" or "params"
    target  0 to 1
    tell    called with a line when something happens
    """

    def __init__(self, of: str, target: float, tell: Callable[[str], None] = lambda line: None) -> None:
        self.of, self.target, self.tell = of, target, tell
        self.log_factor = math.log(START)
        self.met = False
        self.left = 1.0

    def start(self, solver: Solver) -> None:
        """To be called before the first iteration, and after a snapshot has been restored."""
        if self.met:
            solver.keep_zeros()
        else:
            solver.scale_penalties(math.exp(self.log_factor))

    def after_iteration(self, solver: Solver) -> None:
        every = max(1, solver.param.max_iter // CHECKS)
        if self.met or solver.iter % every:
            return
        self.left = getattr(left(solver.net), self.of)
        if self.left <= self.target:
            self.met = True
            solver.keep_zeros()
            self.tell(
                f"iteration {solver.iter}: {100 * self.left:.1f} % of the {self.name} are left, the target is met: "
                "zeros stay zero from here on, the rest is fine-tuned"
            )
            return
        passed = solver.iter / solver.param.max_iter
        wanted = min(1.0, passed / LEARN) * math.log(self.target)
        move = GAIN * (math.log(self.left) - wanted)
        self.log_factor += min(MOST, max(-MOST, move))
        solver.scale_penalties(math.exp(self.log_factor))

    @property
    def name(self) -> str:
        return {"flops": "FLOPs", "params": "parameters"}[self.of]

    @property
    def factor(self) -> float:
        """By which the strengths of the solver are multiplied now."""
        return math.exp(self.log_factor)

    def state(self) -> np.ndarray:
        return np.array([self.log_factor, self.met, self.left])

    def set_state(self, state: np.ndarray) -> None:
        self.log_factor, self.met, self.left = float(state[0]), bool(state[1]), float(state[2])
