"""BoxOutput: the regions that MS-CNN's detection heads propose.

Each bottom predicts one box of field_w x field_h pixels around each of its pixels, which are downsample_rate pixels of the
image apart. The score is the largest of the classes 1, 2, ... less that of the background; boxes with less than fg_thr go.
The numbers x, y, w, h, times bbox_std plus bbox_mean, are limited to -1 / field_xyr .. 1 / field_xyr and -log(field_whr) ..
log(field_whr); the centre moves by (x field_w, y field_h), the size is (field_w exp(w), field_h exp(h)). Boxes are cut at
the image (the size of a bottom times its downsample_rate); those narrower or lower than min_size go. Of the max_nms_num best
of an image those remain that overlap no better one by more than iou_thr, at most max_post_nms_num.

bottom  for each head (N, classes + 4, H, W): scores, then x, y, w, h
top     regions (R, 5, 1, 1): image index, x1, y1, x2, y2, by image, the best first; without any the region 0, 1, 1, 10, 10;
        optionally (R, 6, 1, 1), with the score; without any zeros

Ref: Cai, Fan, Feris, Vasconcelos 2016, MS-CNN
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.base import Blobs
from sslnet.layers.box_regression import regression_moments
from sslnet.layers.no_gradient import NoInputGradient

BLOCK = "box_output_param"
BY_UNION, BY_FIRST, BY_SECOND = range(3)
KINDS = {"IOU": BY_UNION, "IOFU": BY_FIRST, "IOMU": BY_SECOND}


@kernel
def _suppress(boxes, threshold, kind, kept):
    """Marks boxes (n, 4), the best first, that overlap no kept one by more than the threshold."""
    for i in range(len(boxes)):
        kept[i] = True
        area = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
        for k in range(i):
            wide = min(boxes[i, 2], boxes[k, 2]) - max(boxes[i, 0], boxes[k, 0])
            high = min(boxes[i, 3], boxes[k, 3]) - max(boxes[i, 1], boxes[k, 1])
            if not kept[k] or wide <= 0 or high <= 0:
                continue
            other = (boxes[k, 2] - boxes[k, 0]) * (boxes[k, 3] - boxes[k, 1])
            whole = other if kind == 1 else (area if kind == 2 else area + other - wide * high)
            if wide * high > threshold * whole:
                kept[i] = False
                break


@final
class BoxOutput(NoInputGradient):
    TYPE: ClassVar[str] = "BoxOutput"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, None)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)
    DYNAMIC: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.box_output_param
        for name in ("field_h", "field_w", "downsample_rate"):
            values = getattr(param, name)
            if len(values) != len(bottom):
                raise self.error(f"{name} is given {len(values)} times for {len(bottom)} bottoms", BLOCK)
            if min(values) < 1:
                raise self.error(f"{name} must be at least 1", BLOCK, name, 0)
        for name in ("field_whr", "field_xyr"):
            if not 0 < getattr(param, name) < math.inf:
                raise self.error(f"{name} must be above 0", BLOCK, name)
        if param.nms_type not in KINDS:
            raise self.error(f'nms_type must be one of {", ".join(KINDS)}, not "{param.nms_type}"', BLOCK, "nms_type")
        self.moments = regression_moments(self)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob in bottom:
            if blob.num_axes != 4 or blob.channels < 6 or blob.shape[:2] != bottom[0].shape[:2]:
                raise self.shape_error(
                    f'"{blob.name}" must be (N, classes + 4, H, W), as the other bottoms, with two or more classes: '
                    f"{blob.shape}"
                )
        for blob, columns in zip(top, (5, 6)):
            blob.reshape(1, columns, 1, 1)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        found = [self._regions(bottom, image) for image in range(bottom[0].num)]
        rows = np.concatenate([np.empty((0, 6)), *found])
        regions, scored = rows[:, :5], rows
        if not len(rows):
            regions, scored = np.array([[0.0, 1, 1, 10, 10]]), np.zeros((1, 6))
        for blob, values in zip(top, (regions, scored)):
            blob.reshape(*values.shape, 1, 1)
            blob.data[...] = values.reshape(blob.shape)

    def _regions(self, bottom: Blobs, image: int) -> np.ndarray:
        """(R, 6): image index, corners and score of the regions of an image, the best first."""
        param = self.param.box_output_param
        parts = [self._boxes(blob.data[image].astype(np.float64), k) for k, blob in enumerate(bottom)]
        boxes = np.concatenate(parts)
        order = np.argsort(-boxes[:, 4], kind="stable")
        if param.max_nms_num:
            order = order[: param.max_nms_num]
        boxes = boxes[order]
        kept = np.zeros(len(boxes), np.bool_)
        _suppress(boxes, float(param.iou_thr), KINDS[param.nms_type], kept)
        boxes = boxes[kept]
        if param.max_post_nms_num:
            boxes = boxes[: param.max_post_nms_num]
        return np.column_stack([np.full(len(boxes), image), boxes])

    def _boxes(self, data: np.ndarray, head: int) -> np.ndarray:
        """(n, 5): corners and score of the boxes of one head."""
        param = self.param.box_output_param
        _, height, width = data.shape
        step, field = int(param.downsample_rate[head]), np.array([param.field_w[head], param.field_h[head]], np.float64)
        scores = (data[1:-4].max(axis=0) - data[0]).reshape(-1)
        numbers = data[-4:].reshape(4, -1).T
        means, deviations = self.moments
        if len(self.param.bbox_reg_param.bbox_mean):
            numbers = numbers * deviations + means
        move, grow = 1 / param.field_xyr, abs(math.log(param.field_whr))
        y, x = np.mgrid[0:height, 0:width]
        centers = np.stack([x.reshape(-1), y.reshape(-1)], axis=1) + 0.5
        centers = centers * step + np.clip(numbers[:, :2], -move, move) * field
        sizes = field * np.exp(np.clip(numbers[:, 2:], -grow, grow))
        first = np.maximum(centers - sizes / 2, 0)
        sizes = np.minimum(sizes, np.array([width, height]) * step - first)
        good = (scores >= param.fg_thr) & (sizes >= param.min_size).all(axis=1)
        return np.asarray(np.column_stack([first, first + sizes, scores])[good])
