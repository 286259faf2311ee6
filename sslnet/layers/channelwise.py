"""ChannelWise: compaction rules of layers whose top channel c depends on bottom channel c alone."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import numpy as np

from sslnet.layers.base import BoolVector, Layer


class ChannelWise(Layer, ABC):
    """Base of layers with one bottom in which top channel c depends on bottom channel c alone (ReLU, Pooling, Split).

    A bottom channel is removed when all tops remove it; all tops keep the channels that the bottom keeps.
    """

    CHANNELS: ClassVar[str] = "removed in bottom and top together"
    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0] for _ in self.param.top]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(top)]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0] for _ in self.param.top]
