"""Magnitude: the size of all weights that produce, scale and read a channel.

Ref: Li, Kadav, Durdanovic, Samet, Graf 2017, "Pruning Filters for Efficient ConvNets" (L1); He et al. 2018 (L2); Fang et
al. 2023, "DepGraph" (over all coupled parameters)
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.compress.pruning.importance.base import Importance
from sslnet.sparsity.channel_parts import Role


@final
class Magnitude(Importance):
    """Root mean square of the filters and rows that make the channel, over all layers that make it."""

    NAME: ClassVar[str] = "magnitude"

    def scores(self) -> np.ndarray:
        squares, sizes = made(self, 2)
        result: np.ndarray = np.sqrt(squares / np.maximum(sizes, 1))
        return result


@final
class MagnitudeL1(Importance):
    """Mean absolute value of the filters and rows that make the channel, over all layers that make it."""

    NAME: ClassVar[str] = "magnitude_l1"

    def scores(self) -> np.ndarray:
        sums, sizes = made(self, 1)
        result: np.ndarray = sums / np.maximum(sizes, 1)
        return result


def made(importance: Importance, power: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the absolute values to this power, and number, of the weights that make each unit, without biases."""
    count = importance.channels.count
    sums, sizes = np.zeros(count), np.zeros(count)
    for part in importance.channels.of(Role.MAKER):
        if part.part.param.index == 0:
            values = np.abs(part.part.param.blob.data.astype(np.float64)) ** power
            sums += part.sum(values, count)
            sizes += part.sum(np.ones_like(values), count)
    return sums, sizes
