"""ChannelScale: each place of all channels times the number of the second bottom for it.

    y[n, c, p] = s[n, p] x[n, c, p]        dx = s dy        ds[n, p] = sum over c of x dy

With ``global_scale`` one number replaces s: a running mean of |s| (0.99 of the old number and 0.01 of the mean of the batch,
in TRAIN), from min_global_scale to max_global_scale; the first batch gives the first number. dx stays s dy, as in the fork.

bottoms  x (N, C, ...), s with one number for each image and place
tops     y; with global_scale optionally that number, (1)
blob     with global_scale: the number, (1)

Ref: happynear's fork of Caffe (Wang et al. 2017, "NormFace")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.layers.base import Blobs, BoolVector, Layer


@final
class ChannelScale(Layer):
    TYPE: ClassVar[str] = "ChannelScale"
    KIND: ClassVar[str] = "norm"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.channel_scale_param
        self.shared = bool(param.global_scale)
        if len(top) > 1 and not self.shared:
            raise self.error("the second top is for global_scale", "channel_scale_param")
        if self.shared:
            if param.min_global_scale > param.max_global_scale:
                raise self.error("min_global_scale is above max_global_scale", "channel_scale_param")
            self.new_param((1,), default=-1)

    def statistics(self) -> Sequence[Blob]:
        return self.blobs

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, scale = bottom
        if x.num_axes < 2 or scale.count * x.shape[1] != x.count:
            message = f'"{scale.name}" must have a number for each image and place of "{x.name}": '
            raise self.shape_error(message + f"{scale.shape} and {x.shape}")
        self.fold = (x.shape[0], x.shape[1], x.count_of(2))
        top[0].reshape_like(x)
        for blob in top[1:]:
            blob.reshape(1)

    def _numbers(self, bottom: Blobs) -> np.ndarray:
        return bottom[1].data.reshape(self.fold[0], 1, self.fold[2])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.channel_scale_param
        x, y = bottom[0].data.reshape(self.fold), top[0].data.reshape(self.fold)
        if not param.do_forward:
            y[...] = x
        elif not self.shared:
            np.multiply(x, self._numbers(bottom), out=y)
        else:
            number = self.blobs[0].data
            if self.phase == pb.TRAIN:
                mean = np.abs(bottom[1].data).mean()
                number[0] = mean if number[0] < 0 else 0.99 * number[0] + 0.01 * mean
                np.clip(number, param.min_global_scale, param.max_global_scale, out=number)
            np.multiply(x, number[0], out=y)
            for blob in top[1:]:
                blob.data[...] = number

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        param, dy = self.param.channel_scale_param, top[0].diff.reshape(self.fold)
        if propagate_down[0]:
            dx = bottom[0].diff.reshape(self.fold)
            dx[...] = dy * self._numbers(bottom) if param.do_backward_feature else dy
        if propagate_down[1]:
            product = (bottom[0].data.reshape(self.fold) * dy).sum(axis=1)
            bottom[1].diff[...] = product.reshape(bottom[1].shape) if param.do_backward_scale else 0

    # -- compaction: x and top keep the same channels; all of s are kept ------------------------------------------------

    CHANNELS: ClassVar[str] = "removed in the first bottom and the top together; all of the second bottom are kept"
    SHRINKS: ClassVar[bool] = True

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.array(top[0]), np.ones_like(bottom_constant[1])]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0], *(np.ones(1, np.bool_) for _ in self.param.top[1:])]

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        return [zero[0], *(np.zeros(1, np.bool_) for _ in self.param.top[1:])]
