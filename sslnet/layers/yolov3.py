"""Yolov3: YOLO v3's loss of boxes, scores and classes at one scale.

Each object belongs to the pixel of its centre, and to the box of all ``biases`` whose size overlaps its own most, on one
centre, where ``mask`` has it; and to each further box of ``mask`` whose size overlaps its own by more than iou_thresh. With
sigma the logistic function, s the score of an object and p those of the classes, after it, the differences d are

    boxes    coord_scale (2 - w h) times sigma(x), sigma(y), w, h less those of the object (iou_loss MSE); else -iou_normalizer
             times the slope of the overlap (sslnet.layers.yolov3_iou), times exp(w), exp(h), limited to max_delta
    score    s - 1 where there is an object, times object_scale with use_logic_gradient; s elsewhere, 0 where the box overlaps
             an object by more than ``thresh``
    classes  class_scale (p - t) of boxes with an object, t smoothed to 1 - eps / 2 and eps / 2, eps = label_smooth_eps; with
             use_focal_loss t is not smoothed and d is multiplied by the focal factor

With use_logic_gradient all but those of w and h are multiplied by sigma'.

    loss = sum of d^2 / N, and the gradient is d / N, as in YOLO; except MSE, the boxes' part of the sum is iou_normalizer times
    the mean of 1 - overlap

bottom  (N, num (5 + num_class), H, W), see sslnet.layers.yolo; biases in pixels of the image, which has anchors_scale pixels
        for one of the bottom; objects (N, 1, n, 5) as RegionLoss has them
top     the loss

Ref: Redmon, Farhadi 2018, YOLOv3; eric612, MobileNet-YOLO
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs
from sslnet.layers.yolo import (
    best_overlaps,
    check_biases,
    logistic,
    predicted_boxes,
    read_labels,
    shape_overlaps,
)
from sslnet.layers.yolo_loss import YoloLoss
from sslnet.layers.yolov3_iou import overlap, slope

BLOCK = "yolov3_param"
FOCAL = 0.5
"""alpha of the focal loss."""


@final
class Yolov3(YoloLoss):
    TYPE: ClassVar[str] = "Yolov3"
    BLOCK: ClassVar[str] = BLOCK

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.yolov3_param
        for name in ("num_class", "num", "anchors_scale"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", BLOCK, name)
        if len(param.mask) != param.num:
            raise self.error(f"mask must name {param.num} boxes, as num says, not {len(param.mask)}", BLOCK)
        self.biases = check_biases(self, BLOCK, param.biases, max(param.mask) + 1)
        self.mask = [int(m) for m in param.mask]
        self.plain = param.iou_loss == pb.Yolov3Parameter.MSE

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, (images, _, height, width) = self.param.yolov3_param, bottom[0].shape
        unit = (width * int(param.anchors_scale), height * int(param.anchors_scale))
        loss, lost = 0.0, []
        for image in range(images):
            data = bottom[0].data[image].reshape(param.num, -1, height, width).astype(np.float64)
            active = logistic(data)
            active[:, 2:4] = data[:, 2:4]
            result, overlaps = self._differences(active, read_labels(self, bottom[1], image, param.num_class), unit)
            loss += float((result**2).sum() if self.plain else (result[:, 4:] ** 2).sum())
            lost += [1 - each for each in overlaps]
            if param.use_logic_gradient:
                slopes = active * (1 - active)
                slopes[:, 2:4] = 1
                result = result * slopes
            self.difference[image] = result.reshape(self.difference.shape[1:])
        if lost and not self.plain:
            loss += param.iou_normalizer * sum(lost) / len(lost)
        top[0].data[...] = loss / max(1, images)

    def _differences(
        self, active: np.ndarray, objects: np.ndarray, unit: tuple[int, int]
    ) -> tuple[np.ndarray, list[float]]:
        """d of one image, (num, 5 + num_class, H, W), and the overlaps of boxes with their objects.

        active  the data after the logistic function, except w and h
        unit    width and height of the image in pixels
        """
        param, (_, _, height, width) = self.param.yolov3_param, active.shape
        result, overlaps = np.zeros_like(active), []
        boxes = predicted_boxes(active, self.biases[self.mask], unit)
        best = np.zeros(boxes[..., 0].size)
        best_overlaps(boxes.reshape(-1, 4), objects[:, 1:], best)
        result[:, 4] = active[:, 4] * (best.reshape(active[:, 4].shape) <= param.thresh)
        classed = np.zeros(active[:, 4].shape, np.bool_)
        for label, x, y, w, h in objects:
            j, i = min(int(x * width), width - 1), min(int(y * height), height - 1)
            shapes = shape_overlaps(self.biases / unit, np.array([w, h]))
            chosen = int(np.argmax(shapes))
            others = [m for m in self.mask if m != chosen and shapes[m] > param.iou_thresh]
            for bias in [chosen] * (chosen in self.mask) + others:
                a, truth = self.mask.index(bias), np.array([x, y, w, h])
                overlaps.append(overlap(boxes[a, i, j], truth, int(param.iou_loss)))
                own = result[a, :, i, j]
                self._put_box(own, active[a, :4, i, j], boxes[a, i, j], truth, (j, i), (width, height), unit, bias)
                own[4] = (active[a, 4, i, j] - 1) * (param.object_scale if param.use_logic_gradient else 1)
                self._put_class(own[5:], active[a, 5:, i, j], int(label), bool(classed[a, i, j]))
                classed[a, i, j] = True
        return result, overlaps

    def _put_box(
        self,
        own: np.ndarray,
        active: np.ndarray,
        box: np.ndarray,
        truth: np.ndarray,
        place: tuple[int, int],
        size: tuple[int, int],
        unit: tuple[int, int],
        bias: int,
    ) -> None:
        """Writes d of a box.  [overwrites own[:4]]"""
        param = self.param.yolov3_param
        if self.plain:
            targets = np.concatenate([truth[:2] * size - place, np.log(truth[2:] * unit / self.biases[bias])])
            own[:4] = param.coord_scale * (2 - truth[2] * truth[3]) * (active - targets)
            return
        with np.errstate(over="ignore", invalid="ignore"):
            step = slope(box, truth, int(param.iou_loss)) * param.iou_normalizer
            step[2:] *= np.exp(active[2:])
        step = np.clip(np.nan_to_num(step, nan=0, posinf=0, neginf=0), -param.max_delta, param.max_delta)
        own[:4] = (own[:4] if param.accumulate else 0) - step

    def _put_class(self, own: np.ndarray, scores: np.ndarray, label: int, again: bool) -> None:
        """Writes d of the classes; of a box that has an object already only that of the label.  [overwrites own]"""
        param = self.param.yolov3_param
        hot = (np.arange(len(scores)) == label).astype(np.float64)
        smooth = hot * (1 - param.label_smooth_eps) + 0.5 * param.label_smooth_eps
        if again:
            own[label] = param.class_scale * (scores[label] - smooth[label])
        elif param.use_focal_loss:
            p = scores[label] + 1e-15
            own[:] = param.class_scale * (scores - hot) * FOCAL * -(1 - p) * (2 * p * np.log(p) + p - 1)
        else:
            own[:] = param.class_scale * (scores - smooth)
