"""ChannelWise: what compaction needs to know of a layer whose top channel c depends on bottom channel c alone."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import numpy as np

from sslnet.layers.base import BoolVector, Layer


class ChannelWise(Layer, ABC):
    """Base of layers with one bottom whose channels stay apart (ReLU, Pooling, Split): every channel is tied one to one.

    A channel of the bottom goes when it goes from all tops; all tops keep what the bottom keeps.
    """

    CHANNELS: ClassVar[str] = "removed in bottom and top together"
    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0] for _ in self.param.top]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(top)]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0] for _ in self.param.top]
