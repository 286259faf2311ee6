"""Which values of a blob compaction calls a channel: an index of axis 1, or of axis 0 when there is no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import BoolVector, Layer

MOVED = "removed with their values in the top; all are kept where an axis before theirs is joined, cut or summed up"
"""``Layer.CHANNELS`` of layers that move values along the axis of the channels."""


def channel_axis(blob: Blob) -> int:
    return min(1, blob.num_axes - 1)


def channel_count(shape: Sequence[int]) -> int:
    """Channels of a blob: the size of axis 1, of axis 0 where there is no other, 1 for a scalar."""
    return shape[1] if len(shape) > 1 else shape[0] if shape else 1


def all_channels(blob: Blob) -> BoolVector:
    """True for every channel of the blob: none of them may go."""
    return np.ones(channel_count(blob.shape), bool)


class ChannelKeeper(Layer):
    """A layer that rearranges its first bottom: while channel c of that is channel c of the top, compaction passes through.

    Where it is not (``keep_channels`` told so), nothing may go. Of further bottoms, sizes or indices, every channel is needed.
    """

    SHRINKS: ClassVar[bool] = True

    def keep_channels(self, top: Blob, keeps: bool) -> None:
        """Called by ``reshape`` when it has given the top its shape."""
        self._keeps_channels, self._all_channels = keeps, all_channels(top)

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0]] if self._keeps_channels else []

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.array(top[0]), *map(np.ones_like, bottom_constant[1:])] if self._keeps_channels else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0] if self._keeps_channels else self._all_channels]
