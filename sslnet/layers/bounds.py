"""ChannelBox: an interval for each channel of a blob, and the arithmetic with which layers bound their tops (``Layer.bounds``).

A box holds for every value of a channel, at every place of every image. It includes what the layer's code rounds: the
bounds of a sum are widened by (terms + 16) units in the last place of the sum of magnitudes. A box whose ends are equal
therefore proves that the channel is that number exactly, for all inputs of the net's box.

Ref: Moore, Kearfott, Cloud 2009, "Introduction to Interval Analysis"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WINOGRAD_ERROR = 1e-3
"""Part of the sum of magnitudes by which Winograd's transforms may round wrongly; measured errors are 20 times smaller."""


@dataclass(frozen=True)
class ChannelBox:
    """The interval of each channel: low and high are (channels) float64; infinite where there is no bound."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def unknown(cls, channels: int) -> ChannelBox:
        return cls(np.full(channels, -np.inf), np.full(channels, np.inf))

    @classmethod
    def of(cls, low: float, high: float, channels: int) -> ChannelBox:
        """The same interval for all channels."""
        return cls(np.full(channels, float(low)), np.full(channels, float(high)))

    @property
    def size(self) -> int:
        """Number of channels."""
        return self.low.size

    @property
    def constant(self) -> np.ndarray:
        """(channels) bool: True where all values are one number."""
        same: np.ndarray = (self.low == self.high) & np.isfinite(self.low)
        return same

    @property
    def magnitude(self) -> np.ndarray:
        """(channels): the largest absolute value."""
        largest: np.ndarray = np.maximum(np.abs(self.low), np.abs(self.high))
        return largest

    def with_zero(self) -> ChannelBox:
        """The box extended to 0, for values beside zeros of padding."""
        return ChannelBox(np.minimum(self.low, 0), np.maximum(self.high, 0))

    def hull(self, other: ChannelBox) -> ChannelBox:
        """The smallest box around both."""
        return ChannelBox(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def widened(self, by: np.ndarray) -> ChannelBox:
        """The box with ``by``, (channels), added at both ends; an infinite end stays."""
        return ChannelBox(_less(self.low, by), _more(self.high, by))

    def rounded(self, dtype: np.dtype, steps: int) -> ChannelBox:
        """The box widened by so many units in the last place of a type, relative to each channel's largest value."""
        return self.widened(steps * np.finfo(dtype).eps * self.magnitude)

    def repeated(self, count: int) -> ChannelBox:
        """Each channel ``count`` times, one after the other."""
        return ChannelBox(np.repeat(self.low, count), np.repeat(self.high, count))

    def take(self, channels: slice | np.ndarray) -> ChannelBox:
        return ChannelBox(self.low[channels], self.high[channels])

    def ends(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Both ends as numbers of a type: rounded outwards; finite, as the values of a blob are."""
        most = np.finfo(dtype).max
        low, high = (np.clip(end, -most, most).astype(dtype) for end in (self.low, self.high))
        with np.errstate(over="ignore"):
            low = np.where(low > self.low, np.nextafter(low, dtype.type(-np.inf)), low)
            high = np.where(high < self.high, np.nextafter(high, dtype.type(np.inf)), high)
        return np.maximum(low, -most), np.minimum(high, most)


def concatenated(boxes: Sequence[ChannelBox]) -> ChannelBox:
    return ChannelBox(np.concatenate([box.low for box in boxes]), np.concatenate([box.high for box in boxes]))


def mapped(
    box: ChannelBox, dtype: np.dtype, function: Callable[[np.ndarray], np.ndarray], *, steps: int = 0
) -> ChannelBox:
    """The box of a function that rises or falls everywhere, computed at both ends.

    function   an array of dtype to another
    steps      units in the last place by which its values may be wrong
    """
    low, high = box.ends(dtype)
    with np.errstate(all="ignore"):
        ends = np.stack([np.asarray(function(end), np.float64) for end in (low, high)])
    # An end without a bound stands for all numbers beyond it.
    most = float(np.finfo(dtype).max) / 4
    ends[np.abs(ends) >= most] = np.copysign(np.inf, ends[np.abs(ends) >= most])
    bad = np.isnan(ends).any(axis=0)
    result = ChannelBox(np.where(bad, -np.inf, ends.min(axis=0)), np.where(bad, np.inf, ends.max(axis=0)))
    return result.rounded(dtype, steps) if steps else result


def bent_at_zero(
    box: ChannelBox, dtype: np.dtype, function: Callable[[np.ndarray], np.ndarray], *, steps: int = 0
) -> ChannelBox:
    """The box of a function that is monotone on each side of 0 and 0 there (ReLU, AbsVal)."""
    result = mapped(box, dtype, function, steps=steps)
    inside = (box.low < 0) & (box.high > 0)
    return ChannelBox(
        np.where(inside, np.minimum(result.low, 0), result.low),
        np.where(inside, np.maximum(result.high, 0), result.high),
    )


def weighted_sums(
    box: ChannelBox, weights: np.ndarray, bias: np.ndarray | None, *, dtype: np.dtype, terms: int, error: float = 0.0
) -> ChannelBox:
    """The box of sums over channels: each top is sum of w x over all channels and the weights of each, plus a bias.

    weights   (tops, channels, weights of each pair)
    bias      (tops), or None
    terms     number of products in a sum, for its rounding error
    error     what the products may round wrongly beside that, as a part of the sum of magnitudes
    """
    weights = weights.astype(np.float64)
    positive, negative = np.maximum(weights, 0).sum(axis=2), np.minimum(weights, 0).sum(axis=2)
    return summed(box, positive, negative, bias, dtype=dtype, terms=terms, error=error)


def summed(
    box: ChannelBox,
    positive: np.ndarray,
    negative: np.ndarray,
    bias: np.ndarray | None,
    *,
    dtype: np.dtype,
    terms: int,
    error: float = 0.0,
) -> ChannelBox:
    """``weighted_sums`` from the sums of the positive and of the negative weights, (tops, channels)."""
    start = np.zeros(len(positive)) if bias is None else bias.astype(np.float64)
    high = start + _times(positive, box.high) + _times(negative, box.low)
    low = start + _times(positive, box.low) + _times(negative, box.high)
    size = _times(positive - negative, box.magnitude)
    rate = (terms + 16) * float(np.finfo(dtype).eps) + error
    # Products of zeros are exact, and so is the bias alone.
    result = ChannelBox(low, high).widened(np.where(size > 0, rate * (size + np.abs(start)), 0))
    if error:
        return result
    # A sum of numbers of one sign has this sign, however it is rounded.
    up = _times(positive, np.maximum(box.high, 0)) + _times(-negative, np.maximum(-box.low, 0)) + np.maximum(start, 0)
    down = (
        _times(positive, np.maximum(-box.low, 0)) + _times(-negative, np.maximum(box.high, 0)) + np.maximum(-start, 0)
    )
    return ChannelBox(
        np.where(down == 0, np.maximum(result.low, 0), result.low),
        np.where(up == 0, np.minimum(result.high, 0), result.high),
    )


def added(box: ChannelBox, other: ChannelBox) -> ChannelBox:
    return ChannelBox(box.low + other.low, box.high + other.high)


def scaled(box: ChannelBox, factor: np.ndarray) -> ChannelBox:
    """The box times a number for each channel, without rounding; 0 times anything is 0."""
    with np.errstate(invalid="ignore"):
        ends = np.stack([box.low * factor, box.high * factor])
    ends[:, np.asarray(factor == 0)] = 0
    return ChannelBox(ends.min(axis=0), ends.max(axis=0))


def multiplied(box: ChannelBox, other: ChannelBox) -> ChannelBox:
    with np.errstate(invalid="ignore"):
        ends = np.stack([a * b for a in (box.low, box.high) for b in (other.low, other.high)])
    ends[np.isnan(ends)] = 0
    return ChannelBox(ends.min(axis=0), ends.max(axis=0))


def _times(matrix: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """matrix @ ends, where a zero weight makes 0 of an infinite end, too."""
    infinite = np.isinf(ends)
    result = matrix @ np.where(infinite, 0, ends)
    if infinite.any():
        signs = matrix[:, infinite] * np.sign(ends[infinite])
        result = np.where((signs > 0).any(axis=1), np.inf, result)
        result = np.where((signs < 0).any(axis=1), -np.inf, result)
    return np.asarray(result)


def _more(end: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(end), end, end + np.where(np.isnan(by), np.inf, by))


def _less(end: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(end), end, end - np.where(np.isnan(by), np.inf, by))
