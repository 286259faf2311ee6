"""Watches the loss while penalties zero groups: a penalty that is too strong raises the loss before the net collapses."""

from __future__ import annotations

import math
from collections.abc import Callable

TOLERATED = 0.35
"""Tolerated rise of the loss, as a fraction of the difference between the collapsed net's loss and the lowest one."""
SMOOTH = 20
"""Iterations over which the loss is smoothed; in short runs a fiftieth of them, at least 5."""


class LossWatch:
    """The smoothed loss, its lowest value so far, and the loss of the collapsed net, with all penalised groups zero."""

    def __init__(self, smoothed: float = math.nan, lowest: float = math.nan, collapsed: float = math.nan) -> None:
        self.smoothed, self.lowest, self.collapsed = smoothed, lowest, collapsed

    def update(self, loss: float, max_iter: int, collapsed_loss: Callable[[], float]) -> None:
        """Adds the loss of an iteration.  collapsed_loss: called at the first iteration"""
        if math.isnan(self.smoothed):
            self.smoothed = self.lowest = loss
            self.collapsed = collapsed_loss()
        self.smoothed += (loss - self.smoothed) / min(SMOOTH, max(5, max_iter / 50))
        self.lowest = min(self.lowest, self.smoothed)

    @property
    def has_risen(self) -> bool:
        """Whether the loss has risen by more than the tolerance, so that strengths should be lowered."""
        return self.smoothed > self.lowest + TOLERATED * max(0.0, self.collapsed - self.lowest)
