"""Reorg: stride x stride pixels become channels, or with ``reverse`` channels become pixels (YOLO v2).

Value k of an image, counted in the order of (C, H, W), comes from place ((c2 H s + i s + o // s) W s + j s + o % s) of the
image, where k is (c, i, j), c2 = c % (C / s^2), o = c // (C / s^2) and s = stride: darknet's order, which reads the image as
if it had C / s^2 channels of s H x s W pixels. ``reverse`` is the inverse order.

bottom  (N, C, H, W)
top     (N, C s^2, H / s, W / s); reverse: (N, C / s^2, H s, W s)

Ref: Redmon, Farhadi 2017, YOLO9000
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs, Layer


@final
class Reorg(Layer):
    TYPE: ClassVar[str] = "Reorg"
    KIND: ClassVar[str] = "join"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, param = bottom[0], self.param.reorg_param
        s = int(param.stride)
        if s < 1:
            raise self.error("stride must be at least 1", "reorg_param", "stride")
        if x.num_axes != 4:
            raise self.shape_error(f'Reorg is of images (N, C, H, W): "{x.name}" has shape {x.shape}')
        n, c, h, w = x.shape
        if c % (s * s) or (not param.reverse and (h % s or w % s)):
            what = "the channels by stride^2" + ("" if param.reverse else ", height and width by stride")
            raise self.shape_error(f"stride {s} must divide {what}: {x.shape}", "reorg_param", "stride")
        top[0].reshape(*((n, c // s**2, h * s, w * s) if param.reverse else (n, c * s**2, h // s, w // s)))
        places = np.arange(c * h * w).reshape(s, s, c // (s * s), h, w)  # o // s, o % s, c2, i, j
        order = np.empty((c // (s * s), h, s, w, s), np.int64)  # place in the source -> k
        order[...] = places.transpose(2, 3, 0, 4, 1)
        self._to, self._from = order.reshape(-1), np.argsort(order.reshape(-1))
        if param.reverse:
            self._to, self._from = self._from, self._to

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        np.take(_rows(bottom[0].data), self._from, axis=1, out=_rows(top[0].data))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            np.take(_rows(top[0].diff), self._to, axis=1, out=_rows(bottom[0].diff))


def _rows(array: np.ndarray) -> np.ndarray:
    """One row an image."""
    return array.reshape(len(array), -1) if array.size else array.reshape(len(array), 0)
