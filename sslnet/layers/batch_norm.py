"""BatchNorm: y = (x - mean) / sqrt(variance + eps), channel by channel (axis 1), for any shape; in place or not.

In TRAIN the statistics are those of the batch; in TEST, or with ``use_global_stats``, the saved ones:

    blobs   sum of means (C), sum of variances (C), factor (1)      saved statistic = sum / factor, 0 while factor is 0
    TRAIN   factor = fraction factor + 1, sum = fraction sum + value, with the batch's variance times m / (m - 1)

    TRAIN   dx = (dy - mean(dy) - y mean(dy y)) / sqrt(variance + eps)          TEST   dx = dy / sqrt(variance + eps)

With ``sync_batch_norm`` in the solver, mean and variance are those of the whole batch over all ranks.

A blob with one axis is one channel. The three blobs are statistics: their learning rate must be 0.

Ref: Ioffe, Szegedy 2015
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.pointwise.channel_reductions import channel_moments, channel_sums
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.runtime.memory import aligned_empty
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.bounds import ChannelBox, scaled
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph
from sslnet.ranks.place import Exchange


@kernel
def _normalize(r0, r1, thread, x, y, mean, inverse):
    """y = (x - mean) inverse, for the rows [r0, r1) of (images * channels, values)."""
    c = r0 % mean.size
    for r in range(r0, r1):
        xr, yr = x[r], y[r]
        m, k = mean[c], inverse[c]
        for q in range(xr.size):
            yr[q] = (xr[q] - m) * k
        c = c + 1 if c + 1 < mean.size else 0


@kernel
def _normalize_in_place(r0, r1, thread, y, kept, mean, inverse):
    """kept = (y - mean) inverse, then y = kept."""
    c = r0 % mean.size
    for r in range(r0, r1):
        yr, kr = y[r], kept[r]
        m, k = mean[c], inverse[c]
        for q in range(yr.size):
            kr[q] = (yr[q] - m) * k
        for q in range(yr.size):
            yr[q] = kr[q]
        c = c + 1 if c + 1 < mean.size else 0


@kernel
def _normalize_over(r0, r1, thread, y, mean, inverse):
    """y = (y - mean) inverse."""
    c = r0 % mean.size
    for r in range(r0, r1):
        yr, m, k = y[r], mean[c], inverse[c]
        for q in range(yr.size):
            yr[q] = (yr[q] - m) * k
        c = c + 1 if c + 1 < mean.size else 0


@kernel
def _gradient(r0, r1, thread, x, dy, dx, center, slope, level, factor):
    """dx = factor (dy - level - slope (x - center)), row by row; dx may be dy."""
    above = np.empty(x.shape[1], x.dtype)
    c = r0 % center.size
    if x.shape[1] == 1:
        # For rows of one value the copy would cost more than the computation.
        for r in range(r0, r1):
            dx[r, 0] = factor[c] * (dy[r, 0] - level[c] - slope[c] * (x[r, 0] - center[c]))
            c = c + 1 if c + 1 < center.size else 0
        return
    for r in range(r0, r1):
        xr, dr = x[r], dx[r]
        above[:] = dy[r]
        m, s, l, f = center[c], slope[c], level[c], factor[c]
        for q in range(xr.size):
            dr[q] = f * (above[q] - l - s * (xr[q] - m))
        c = c + 1 if c + 1 < center.size else 0


@final
class BatchNorm(ChannelWise):
    TYPE: ClassVar[str] = "BatchNorm"
    KIND: ClassVar[str] = "norm"
    CHANNELS: ClassVar[str] = "removed with their parameters"
    IN_PLACE: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.batch_norm_param
        if param.eps < 0:
            raise self.error(f"eps must not be negative, not {param.eps:g}", "batch_norm_param", "eps")
        if not 0 <= param.moving_average_fraction <= 1:
            raise self.error(
                f"moving_average_fraction must be from 0 to 1, not {param.moving_average_fraction:g}",
                "batch_norm_param",
                "moving_average_fraction",
            )
        self._check_rates()
        self.use_global_stats = param.use_global_stats if param.HasField("use_global_stats") else self.phase == pb.TEST
        self.channels = bottom[0].shape[1] if bottom[0].num_axes > 1 else 1
        for size in (self.channels, self.channels, 1):
            self.new_param((size,))
        self.mean, self._variance, self._total, self._dot = np.zeros((4, self.channels))
        self._normalized = np.empty(0, self.dtype)

    def _check_rates(self) -> None:
        """Sets the learning rate of the statistics to 0; raises DefinitionError where another one is given."""
        for index, spec in enumerate(self.param.param):
            if spec.HasField("lr_mult") and spec.lr_mult != 0:
                raise self.error(
                    "the statistics of BatchNorm are not learned: lr_mult must be 0", "param", index, "lr_mult"
                )
        self.param = pb.LayerParameter.FromString(self.param.SerializeToString())
        while len(self.param.param) < 3:
            self.param.param.add()
        for spec in self.param.param:
            spec.lr_mult = 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        channels = bottom[0].shape[1] if bottom[0].num_axes > 1 else 1
        if channels != self.channels:
            raise self.shape_error(
                f"the statistics are of {self.channels} channels, the bottom has {channels}: {bottom[0].shape}"
            )
        top[0].reshape_like(bottom[0])
        outer = bottom[0].shape[0] if bottom[0].num_axes else 1
        inner = bottom[0].count // max(1, outer * channels)
        self.fold, self.rows = (outer, channels, inner), (outer * channels, inner)
        if top[0] is bottom[0] and self.context.backward and self._normalized.size != bottom[0].count:
            self._normalized = aligned_empty(bottom[0].count, self.dtype)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.use_global_stats:
            self.read_moments()
        else:
            x = bottom[0].data.reshape(self.fold)
            spread(channel_moments, self.channels, self._count, x, self.mean, self._variance)
            self._share_moments()
            self._save_moments()
        x, y = bottom[0].data.reshape(self.rows), top[0].data.reshape(self.rows)
        mean, inverse = self.mean.astype(self.dtype), self.inverse.astype(self.dtype)
        if top[0] is bottom[0] and not self.context.backward:
            spread(_normalize_over, *self.rows, y, mean, inverse)
        elif top[0] is bottom[0]:
            spread(_normalize_in_place, *self.rows, y, self._normalized.reshape(self.rows), mean, inverse)
        else:
            spread(_normalize, *self.rows, x, y, mean, inverse)

    def read_moments(self) -> None:
        """Sets mean and variance to the saved statistics."""
        factor = float(self.blobs[2].data[0])
        scale = 1 / factor if factor else 0.0
        self.mean[:], self._variance[:] = self.blobs[0].data * scale, self.blobs[1].data * scale

    @property
    def exchange(self) -> Exchange | None:
        """What sums the moments over the ranks (``sync_batch_norm``); None where each takes those of its own part."""
        place = self.context.place
        return place.exchange if place.sync and not self.use_global_stats else None

    def _share_moments(self) -> None:
        """Replaces mean and variance of this rank's part by those of the whole batch, whose parts have equal sizes."""
        if self.exchange is not None:
            moments = np.stack([self.mean, self._variance + self.mean**2])
            self.mean[:], squares = self.exchange.total(moments) / self.context.place.whole
            self._variance[:] = np.maximum(squares - self.mean**2, 0)

    def take_moments(self, mean: np.ndarray, variance: np.ndarray) -> None:
        """Uses and saves the mean and variance of the batch, computed by the caller."""
        self.mean[:], self._variance[:] = mean, variance
        self._save_moments()

    def normalized(self) -> np.ndarray:
        """The normalised values, flat, which the gradient reads; only for a layer in place."""
        return self._normalized

    @property
    def _count(self) -> int:
        """Number of values per channel."""
        return self.fold[0] * self.fold[2]

    @property
    def inverse(self) -> np.ndarray:
        """1 / sqrt(variance + eps)."""
        inverse: np.ndarray = 1 / np.sqrt(self._variance + self.param.batch_norm_param.eps)
        return inverse

    def _save_moments(self) -> None:
        fraction = self.param.batch_norm_param.moving_average_fraction
        count = self._count * (self.context.place.whole if self.exchange is not None else 1)
        unbiased = count / (count - 1) if count > 1 else 1.0
        means, variances, factor = (blob.data for blob in self.blobs)
        means[:] = fraction * means + self.mean
        variances[:] = fraction * variances + unbiased * self._variance
        factor[:] = fraction * factor + 1

    def statistics(self) -> Blobs:
        return () if self.use_global_stats else self.blobs

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return not in_place

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dy, dx = top[0].diff, bottom[0].diff
        inverse = self.inverse
        # In place x is overwritten: y replaces it, with mean 0 and variance 1.
        if top[0] is bottom[0]:
            x, center, steepness = self._normalized, np.zeros(self.channels), np.ones(self.channels)
        else:
            x, center, steepness = bottom[0].data, self.mean, inverse
        if self.use_global_stats:
            level = slope = np.zeros(self.channels)
        else:
            arrays = (dy.reshape(self.fold), x.reshape(self.fold), center.astype(self.dtype))
            spread(channel_sums, self.channels, self._count, *arrays, self._total, self._dot)
            total, dot, count = self._total, self._dot, self._count
            if self.exchange is not None:
                total, dot = self.exchange.total(np.stack([total, dot]))
                count *= self.context.place.whole
            level, slope = total / count, dot / count * steepness**2
        vectors = (v.astype(self.dtype) for v in (center, slope, level, inverse))
        spread(_gradient, *self.rows, x.reshape(self.rows), dy.reshape(self.rows), dx.reshape(self.rows), *vectors)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return (2 if self.use_global_stats else 5) * bottom[0].count

    # -- compaction --------------------------------------------------------------------------------------------------

    # Also in TRAIN: where a channel does not depend on the input, its statistics do not either. A blob with one axis is
    # refused, because every value contributes to the mean.

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return super().constant_channels(bottom) if self._by_channel() else []

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return super().needed_channels(top, bottom_constant) if self._by_channel() else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return super().followed_channels(bottom) if self._by_channel() else [np.ones_like(bottom[0])]

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if not self.use_global_stats or bottom[0].size != self.channels:
            return super().bounds(bottom, top)
        self.read_moments()
        centred = ChannelBox(bottom[0].low - self.mean, bottom[0].high - self.mean)
        size = (bottom[0].magnitude + np.abs(self.mean)) * self.inverse
        return [scaled(centred, self.inverse).widened(8 * np.finfo(self.dtype).eps * size)]

    def _by_channel(self) -> bool:
        return self.fold[1:] != (1, 1)

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, (mean, variance, factor) = super().shrink(bottom_keep, top_keep, shift)
        return param, [mean[bottom_keep[0]], variance[bottom_keep[0]], factor]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if not self.use_global_stats:
            raise self.not_in_onnx("BatchNorm with the statistics of the batch (use_global_stats: false)")
        if bottom[0].num_axes < 2:
            raise self.not_in_onnx("BatchNorm of a blob with one axis")
        mean, variance, factor = (blob.data for blob in self.blobs)
        scale = np.float32(1 / factor[0]) if factor[0] else np.float32(0)
        statistics = [
            graph.param(self, 0, mean * scale, "mean"),
            graph.param(self, 1, variance * scale, "variance"),
        ]
        ones = [graph.constant(np.ones(len(mean))), graph.constant(np.zeros(len(mean)))]
        eps = self.param.batch_norm_param.eps
        return [graph.node("BatchNormalization", [inputs[0], *ones, *statistics], epsilon=eps)]
