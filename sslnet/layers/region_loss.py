"""RegionLoss: YOLO v2's loss of boxes, scores and classes.

Each object belongs to the pixel of its centre and to the box there whose size overlaps its own most, both on one centre: that
of the biases (bias_match), or the predicted one. With s the score of an object after the logistic function and p the softmax
of the classes, the differences d are

    x, y     coord_scale c (sigma(x) - target) sigma'(x), of boxes with an object; c = 2 - w h, or 1 with rescore
    w, h     coord_scale c (w - log(object's size / bias))
    score    object_scale (s - t) sigma' where there is an object: t its overlap with the box (rescore), or 1;
             noobject_scale s sigma' elsewhere, 0 where the box overlaps an object by more than ``thresh``
    classes  class_scale (p - target) of boxes with an object

    loss = sum of d^2 / N, and the gradient is d / N: as in YOLO, whose loss is a number to look at, not the integral of that.

bottom  (N, num (5 + num_class), H, W), see sslnet.layers.yolo, biases in pixels of the bottom; objects (N, 1, n, 5): class,
        centre x, y, width, height, as AnnotatedData makes them with yolo_data_type 1; a row of width 0 ends them
top     the loss

Ref: Redmon, Farhadi 2017, YOLO9000; eric612, MobileNet-YOLO
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.yolo import (
    best_overlaps,
    check_biases,
    logistic,
    predicted_boxes,
    read_labels,
    shape_overlaps,
    softmax,
)
from sslnet.layers.yolo_loss import YoloLoss

BLOCK = "region_loss_param"


@final
class RegionLoss(YoloLoss):
    TYPE: ClassVar[str] = "RegionLoss"
    BLOCK: ClassVar[str] = BLOCK

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.region_loss_param
        for name in ("num_class", "num"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", BLOCK, name)
        for name, wanted in (("coords", 4), ("softmax", 1)):
            if getattr(param, name) != wanted:
                raise self.error(f"{name} must be {wanted}", BLOCK, name)
        self.biases = check_biases(self, BLOCK, param.biases, param.num)[: param.num]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.region_loss_param
        self.difference[...] = 0
        for image in range(bottom[0].num):
            data = bottom[0].data[image].reshape(param.num, -1, *bottom[0].shape[2:]).astype(np.float64)
            found = self._differences(data, read_labels(self, bottom[1], image, param.num_class))
            self.difference[image] = found.reshape(self.difference.shape[1:])
        total = np.square(self.difference, dtype=np.float64).sum()
        top[0].data[...] = total / max(1, bottom[0].num)

    def _differences(self, data: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """d of one image: (num, 5 + num_class, H, W), like the data."""
        param = self.param.region_loss_param
        _, _, height, width = data.shape
        result = np.zeros_like(data)
        score, classes = logistic(data[:, 4]), softmax(data[:, 5:], 1)
        places = logistic(data[:, :2])
        boxes = predicted_boxes(data, self.biases, (width, height), activated=False)
        best = np.zeros(boxes[..., 0].size)
        best_overlaps(boxes.reshape(-1, 4), objects[:, 1:], best)
        free = best.reshape(score.shape) <= param.thresh
        result[:, 4] = param.noobject_scale * score * score * (1 - score) * free
        for label, x, y, w, h in objects:
            j, i = min(int(x * width), width - 1), min(int(y * height), height - 1)
            sizes = self.biases / [width, height] if param.bias_match else boxes[:, i, j, 2:]
            a = int(np.argmax(shape_overlaps(sizes, np.array([w, h]))))
            overlap = np.zeros(1)
            best_overlaps(boxes[a, i, j][None], np.array([[x, y, w, h]]), overlap)
            factor = param.coord_scale * (1 if param.rescore else 2 - w * h)
            place = places[a, :, i, j]
            targets = np.array([x * width - j, y * height - i])
            result[a, :2, i, j] = factor * (place - targets) * place * (1 - place)
            targets = np.log(np.array([w * width, h * height]) / self.biases[a])
            result[a, 2:4, i, j] = factor * (data[a, 2:4, i, j] - targets)
            s = score[a, i, j]
            result[a, 4, i, j] = param.object_scale * (s - (overlap[0] if param.rescore else 1)) * s * (1 - s)
            result[a, 5:, i, j] = param.class_scale * (classes[a, :, i, j] - (np.arange(param.num_class) == label))
        return result
