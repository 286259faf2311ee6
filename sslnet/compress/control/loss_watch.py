"""Watches the loss while penalties zero groups: too strong a penalty shows there before the net has collapsed."""

from __future__ import annotations

import math
from collections.abc import Callable

TOLERATED = 0.35
"""The part of what the net has learned, by its loss, that may be lost before strengths are lowered."""
SMOOTH = 20
"""Iterations over which the loss is smoothed for that; in short runs a fiftieth of them, 5 at least."""


class LossWatch:
    """The smoothed loss, the lowest so far, and the loss of the collapsed net: without all groups that penalties can zero."""

    def __init__(self, smoothed: float = math.nan, lowest: float = math.nan, collapsed: float = math.nan) -> None:
        self.smoothed, self.lowest, self.collapsed = smoothed, lowest, collapsed

    def update(self, loss: float, max_iter: int, collapsed_loss: Callable[[], float]) -> None:
        """Takes in the loss of an iteration.  collapsed_loss: called at the first one"""
        if math.isnan(self.smoothed):
            self.smoothed = self.lowest = loss
            self.collapsed = collapsed_loss()
        self.smoothed += (loss - self.smoothed) / min(SMOOTH, max(5, max_iter / 50))
        self.lowest = min(self.lowest, self.smoothed)

    @property
    def has_risen(self) -> bool:
        """Whether strengths should be lowered."""
        return self.smoothed > self.lowest + TOLERATED * max(0.0, self.collapsed - self.lowest)
