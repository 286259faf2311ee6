"""BatchPlace: which part of the whole batch a net computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class Exchange(Protocol):
    """Sums over all ranks, for layers that need numbers of the whole batch."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of the arrays (float64) of all ranks, in the order of the ranks' tree."""


@dataclass
class BatchPlace:
    """The part of the whole batch that a net computes in its next forward pass. All layers of a net share one.

    A process runs the passes of its parts one after the other: ``repeats`` whole batches for its first part, then the
    same whole batches for its next one. In a test (``step`` above 1) the ranks take turns, a batch each.

    first    number of the first part that this process computes
    parts    number of parts that it computes
    whole    number of parts of the whole batch, over all processes
    repeats  number of whole batches of an iteration (iter_size)
    step     number of batches from one that this process computes to the next; ``offset``: the number of its first one
    exchange sums over the ranks; None where each computes alone
    sync     whether BatchNorm takes the moments of the whole batch
    numbered whether parts are those of a solver's batch, so that each may have a database of its own
    """

    first: int = 0
    parts: int = 1
    whole: int = 1
    repeats: int = 1
    step: int = 1
    offset: int = 0
    exchange: Exchange | None = field(default=None, repr=False)
    sync: bool = False
    numbered: bool = False
    now: int = 0
    """Which of the parts of this process runs now, from 0."""

    @property
    def share(self) -> float:
        """The share of the part's mean loss in that of the whole batch."""
        return 1 / self.whole

    @property
    def number(self) -> int:
        """Number of the part in the whole batch."""
        return self.first + self.now

    @property
    def cycle(self) -> int:
        """Number of forward passes after which all readers stand at the same place again."""
        return self.parts * self.repeats

    @property
    def advance(self) -> int:
        """Number of whole batches that all ranks together read in a cycle."""
        return self.repeats * self.step

    def turn(self, pass_number: int) -> tuple[int, int]:
        """What a forward pass reads, counted from the beginning of a cycle: (number of the whole batch, number of the part
        in it)."""
        cycle, rest = divmod(pass_number, self.cycle)
        part, repeat = divmod(rest, self.repeats)
        return cycle * self.advance + repeat + self.offset, self.first + part
