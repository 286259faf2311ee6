"""Resampled: base of layers that make each pixel of an image from pixels of another, channel by channel."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sslnet.kernels.pointwise.resample import resample, resample_gradient
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.base import Blobs
from sslnet.layers.channelwise import ChannelWise

Table = tuple[np.ndarray, np.ndarray]
"""For each output position along an axis: the pixels (out, taps) int64, and their weights (out, taps)."""


class Resampled(ChannelWise, ABC):
    """Base of Resize and Pad. ``reshape`` of a subclass calls ``sample``, with a table for each axis of the image."""

    KIND: ClassVar[str] = "pooling"

    def image_size(self, bottom: Blobs) -> tuple[int, int]:
        """Height and width of the bottom's images. raises ShapeError if it has other axes, or images without pixels"""
        x = bottom[0]
        if x.num_axes != 4:
            raise self.shape_error(f'{self.TYPE} needs a bottom of 4 axes (N, C, H, W): "{x.name}" has shape {x.shape}')
        if 0 in x.shape[2:]:
            raise self.shape_error(f'there are no pixels: "{x.name}" has shape {x.shape}')
        return x.height, x.width

    def sample(self, bottom: Blobs, top: Blobs, rows: Table, columns: Table) -> None:
        """Shapes the top, and keeps the tables."""
        x, out = bottom[0], (len(rows[0]), len(columns[0]))
        top[0].reshape(*x.shape[:2], *out)
        self._planes, self._out_planes = (x.count_of(0, 2), *x.shape[2:]), (x.count_of(0, 2), *out)
        self._tables = [array for index, weight in (rows, columns) for array in (index, weight.astype(self.dtype))]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self._planes), top[0].data.reshape(self._out_planes)
        spread(resample, len(y), self._work(), x, y, *self._tables)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            dx, dy = bottom[0].diff.reshape(self._planes), top[0].diff.reshape(self._out_planes)
            dx[...] = 0
            spread(resample_gradient, len(dy), self._work(), dx, dy, *self._tables)

    def _work(self) -> int:
        """Multiply-adds of a plane."""
        height, width = self._out_planes[1:]
        work: int = height * (self._planes[2] * self._tables[0].shape[1] + width * self._tables[2].shape[1])
        return work

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * self._planes[0] * self._work()
