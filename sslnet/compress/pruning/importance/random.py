"""Random: scores drawn at random, the baseline of every comparison of criteria."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.compress.pruning.importance.base import Importance


@final
class Random(Importance):
    """Uniform random numbers from the seed."""

    NAME: ClassVar[str] = "random"

    def scores(self) -> np.ndarray:
        return np.random.default_rng(self.seed).random(self.channels.count)
