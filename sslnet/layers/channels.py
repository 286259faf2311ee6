"""Channels of a blob in the sense of compaction: indices of axis 1, or of axis 0 when the blob has one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import BoolVector, Layer

MOVED = (
    "removed with their values in the top; if an axis before the channel axis is joined, cut or reduced, all are kept"
)
"""``Layer.CHANNELS`` for layers that move values along the channel axis."""


def channel_axis(blob: Blob) -> int:
    return min(1, blob.num_axes - 1)


def channel_count(shape: Sequence[int]) -> int:
    """Number of channels of a blob: the size of axis 1, of axis 0 when there is one axis, 1 for a scalar."""
    return shape[1] if len(shape) > 1 else shape[0] if shape else 1


def all_channels(blob: Blob) -> BoolVector:
    """(channels) bool: True for every channel of the blob, to keep all."""
    return np.ones(channel_count(blob.shape), bool)


class ChannelKeeper(Layer):
    """Base of layers that rearrange their first bottom; compaction removes a channel in bottom and top together.

    This holds while channel c of the top is channel c of the bottom (``keep_channels``); otherwise all are kept. All
    channels of further bottoms (sizes, indices) are kept.
    """

    SHRINKS: ClassVar[bool] = True

    def keep_channels(self, top: Blob, keeps: bool) -> None:
        """Records whether channel c of the top is channel c of the bottom; for ``reshape``, after it shapes the top."""
        self._keeps_channels, self._all_channels = keeps, all_channels(top)

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0]] if self._keeps_channels else []

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.array(top[0]), *map(np.ones_like, bottom_constant[1:])] if self._keeps_channels else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0] if self._keeps_channels else self._all_channels]


class OnePerChannel(Layer):
    """Base of layers whose parameter is one number per channel, or one for all channels (``channel_shared``).

    shared  whether there is one for all; set by ``setup``
    fold    (N, C, values) of the bottom; set by ``reshape``
    """

    shared: bool
    fold: tuple[int, int, int]

    def by_channel(self) -> np.ndarray:
        """(C): the parameter of each channel."""
        numbers = self.blobs[0].data
        return np.full(self.fold[1], numbers, self.dtype) if self.shared else numbers

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        return param, blobs if self.shared else [blobs[0][bottom_keep[0]]]
