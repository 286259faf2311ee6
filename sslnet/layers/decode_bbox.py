"""DecodeBBox: regions moved by the last four numbers of box regression (Cascade R-CNN).

A region x1, y1, x2, y2 is w = x2 - x1 + 1 pixels wide and h high. With the numbers d, each times bbox_std plus bbox_mean, its
centre moves by (d0 w, d1 h), and its size is multiplied by exp(d2), exp(d3). In phase TRAIN regions whose corners then are in
the wrong order go, and those that overlap an object by gt_iou_thr or more, which the last number of the third bottom says.

bottom  numbers (R, 8), regions (R, 5) of image index and corners; optionally the matched objects (R, n)
top     regions (R', 5, 1, 1); where none remains, the first one as it was

Ref: Cai, Vasconcelos 2018, Cascade R-CNN
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs
from sslnet.layers.box_regression import regression_moments
from sslnet.layers.no_gradient import NoInputGradient
from sslnet.layers.regions import region_count


@final
class DecodeBBox(NoInputGradient):
    TYPE: ClassVar[str] = "DecodeBBox"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 3)
    DYNAMIC: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.moments = regression_moments(self)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        count = region_count(self, bottom[1])
        if bottom[0].num != count or bottom[0].count_of(1) != 8:
            raise self.shape_error(f'"{bottom[0].name}" must be ({count}, 8): {bottom[0].shape}')
        if len(bottom) > 2 and (bottom[2].num != count or not bottom[2].count_of(1)):
            raise self.shape_error(f'"{bottom[2].name}" must have {count} rows: {bottom[2].shape}')
        top[0].reshape(count, 5, 1, 1)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        regions = bottom[1].data.reshape(-1, 5).astype(np.float64)
        numbers = bottom[0].data.reshape(-1, 8)[:, 4:].astype(np.float64)
        means, deviations = self.moments
        numbers = numbers * deviations + means
        sizes = regions[:, 3:] - regions[:, 1:3] + 1
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = sizes * np.exp(numbers[:, 2:])
            first = (regions[:, 1:3] + regions[:, 3:]) / 2 + numbers[:, :2] * sizes - (scaled - 1) / 2
            moved = np.column_stack([regions[:, 0], first, first + scaled - 1])
        kept: np.ndarray = np.ones(len(moved), np.bool_)
        if self.phase == pb.TRAIN:
            kept = ~(moved[:, 1:3] > moved[:, 3:]).any(axis=1)
            if len(bottom) > 2:
                overlap = bottom[2].data.reshape(bottom[2].num, -1)[:, -1]
                kept &= overlap < self.param.decode_bbox_param.gt_iou_thr
        result = moved[kept] if kept.any() else regions[:1]
        top[0].reshape(len(result), 5, 1, 1)
        top[0].data[...] = result.reshape(top[0].shape)
