"""Region: boxes and class scores of YOLO v2, as numbers for further use.

bottom  (N, H, W, num (5 + classes)): for each box of a pixel x, y, w, h, the score of an object, and the classes'
top     (N, H W num, 5 + classes), or for one image (H W num, 5 + classes): centre, width and height in units of the image,
        the object's score s after the logistic function, and the classes' scores s p, p their softmax (or logistic function);
        scores up to ``thresh`` are 0. With nms_threshold a box's score of a class is 0 where one with a higher score of the
        class overlaps it by more

Ref: Redmon, Farhadi 2017, YOLO9000; OpenCV's layer of this name
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.boxes import suppress
from sslnet.layers.no_gradient import NoInputGradient
from sslnet.layers.yolo import check_biases, corners, logistic, predicted_boxes, softmax

BLOCK = "region_param"


@final
class Region(NoInputGradient):
    TYPE: ClassVar[str] = "Region"
    KIND: ClassVar[str] = "result"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.region_param
        for name in ("classes", "num"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", BLOCK, name)
        if param.coords != 4:
            raise self.error("coords must be 4", BLOCK, "coords")
        self.biases = check_biases(self, BLOCK, param.biases, param.num)[: param.num]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, x = self.param.region_param, bottom[0]
        numbers = 5 + int(param.classes)
        if x.num_axes != 4 or x.shape[3] != param.num * numbers:
            raise self.shape_error(f'"{x.name}" must be (N, H, W, {param.num * numbers}): {x.shape}')
        rows = x.shape[1] * x.shape[2] * int(param.num)
        top[0].reshape(*((rows, numbers) if x.num == 1 else (x.num, rows, numbers)))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, (images, height, width, _) = self.param.region_param, bottom[0].shape
        count = int(param.num)
        result = top[0].data.reshape(images, height, width, count, -1)
        for image in range(images):
            data = bottom[0].data[image].reshape(height, width, count, -1).astype(np.float64)
            planes = data.transpose(2, 3, 0, 1)
            boxes = predicted_boxes(planes, self.biases, (width, height), activated=False).transpose(1, 2, 0, 3)
            score = logistic(data[..., 4:5])
            classes = softmax(data[..., 5:], 3) if param.softmax else logistic(data[..., 5:])
            if param.classfix:
                score = np.where(score < 0.5, 0, score)
            scores = score * classes
            scores[~(scores > param.thresh)] = 0
            if param.nms_threshold > 0:
                self._suppress(corners(boxes).reshape(-1, 4), scores.reshape(-1, scores.shape[-1]))
            result[image] = np.concatenate([boxes, score, scores], axis=-1)

    def _suppress(self, boxes: np.ndarray, scores: np.ndarray) -> None:
        """Sets the scores of boxes that overlap a better one to 0.  [overwrites scores (n, classes)]"""
        for label in range(scores.shape[1]):
            chosen = np.flatnonzero(scores[:, label] > 0)
            chosen = chosen[np.argsort(-scores[chosen, label], kind="stable")]
            kept = np.zeros(len(chosen), np.bool_)
            suppress(boxes[chosen], float(self.param.region_param.nms_threshold), 1.0, kept)
            scores[chosen[~kept], label] = 0
