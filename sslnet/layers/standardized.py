"""Standardized: base of layers that subtract a mean and divide by a deviation, computed from the values themselves."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sslnet.kernels.pointwise.standardize import standardize, standardize_gradient
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.channelwise import ChannelWise


class Standardized(ChannelWise, ABC):
    """Base of GroupNorm and LayerNorm: y = (x - mean) / sqrt(variance + eps), with the population variance.

    A subclass shapes the top and calls ``average`` in ``reshape``. A Scale layer behind it holds the learned factor and
    summand, as behind a BatchNorm.
    """

    KIND: ClassVar[str] = "norm"
    CHANNELS: ClassVar[str] = "removed where each channel is normalised by itself, otherwise all are kept"

    eps: float

    def average(self, fold: tuple[int, int, int], *, by_channel: bool) -> None:
        """Sets the axes over which to average. fold: the bottom as (outer, averaged over, inner)

        by_channel   whether no average is over several channels
        """
        if not fold[1]:
            raise self.shape_error("there are no values to average")
        self._fold, self._by_channel = fold, by_channel
        self._mean, self._factor = np.zeros((2, fold[0], fold[2]), self.dtype)

    def check_eps(self, eps: float, field: str) -> None:
        if not eps >= 0:
            raise self.error(f"eps must not be negative, not {eps:g}", field, "eps")
        self.eps = eps

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self._fold), top[0].data.reshape(self._fold)
        spread(standardize, len(x), 3 * self._fold[1] * self._fold[2], x, y, self._mean, self._factor, self.eps)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            x, dy, dx = (a.reshape(self._fold) for a in (bottom[0].data, top[0].diff, bottom[0].diff))
            spread(standardize_gradient, len(x), 3 * self._fold[1] * self._fold[2], x, dy, dx, self._mean, self._factor)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 6 * bottom[0].count

    # -- compaction: a channel that is averaged over contributes to the mean even where it is zero ---------------------

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return super().constant_channels(bottom) if self._by_channel else []

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return super().needed_channels(top, bottom_constant) if self._by_channel else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return super().followed_channels(bottom) if self._by_channel else [np.ones_like(bottom[0])]
