"""Yolov3DetectionOutput: the boxes that YOLO v3 finds, of several feature maps.

The score of a box for a class is that of an object times that of the class, each after the logistic function; with
gaussian_box also times 1 less the mean of the four uncertainties. All boxes with a score above confidence_threshold remain
unless a better one of the image, of any class, overlaps them by nms_threshold or more.

bottom  for each of mask_group_num scales (N, num_box (5 + num_classes), H, W), see sslnet.layers.yolo; its boxes have the
        biases that ``mask`` names, in pixels of the image, which has anchors_scale pixels for one of the bottom. With
        gaussian_box each of x, y, w, h is followed by its uncertainty
top     (1, 1, K, 7), as YoloDetectionOutput's

Ref: Redmon, Farhadi 2018, YOLOv3; Choi et al. 2019, Gaussian YOLOv3; eric612, MobileNet-YOLO
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.no_gradient import NoInputGradient
from sslnet.layers.yolo import check_biases, check_map, check_scores, corners, logistic, predicted_boxes, put_detections

BLOCK = "yolov3_detection_output_param"


@final
class Yolov3DetectionOutput(NoInputGradient):
    TYPE: ClassVar[str] = "Yolov3DetectionOutput"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, None)
    DYNAMIC: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.yolov3_detection_output_param
        check_scores(self, BLOCK, param)
        count = len(bottom)
        if param.mask_group_num != count:
            raise self.error(f"mask_group_num is {param.mask_group_num} for {count} bottoms", BLOCK, "mask_group_num")
        if len(param.anchors_scale) != count or min(param.anchors_scale) < 1:
            raise self.error(f"anchors_scale must be given {count} times, 1 or more", BLOCK)
        if len(param.mask) != count * param.num_box:
            raise self.error(f"mask must name {param.num_box} boxes for each of {count} bottoms", BLOCK)
        biases = check_biases(self, BLOCK, param.biases, max(param.mask) + 1)
        self.biases = biases[np.array(param.mask)].reshape(count, param.num_box, 2)
        self.numbers = 9 if param.gaussian_box else 5
        """Numbers of a box before its classes."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.yolov3_detection_output_param
        for blob in bottom:
            check_map(self, blob, param.num_box, self.numbers + param.num_classes)
            if blob.num != bottom[0].num:
                raise self.shape_error(f"all bottoms must have as many images: {bottom[0].shape}, {blob.shape}")
        top[0].reshape(1, 1, max(1, bottom[0].num), 7)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        found = []
        for image in range(bottom[0].num):
            parts = [self._boxes(blob.data[image].astype(np.float64), k) for k, blob in enumerate(bottom)]
            found.append(np.concatenate(parts))
        put_detections(top, found, float(self.param.yolov3_detection_output_param.nms_threshold))

    def _boxes(self, data: np.ndarray, scale: int) -> np.ndarray:
        """(n, 6): class, score and corners of the boxes of one feature map."""
        param = self.param.yolov3_detection_output_param
        height, width = data.shape[1:]
        data = data.reshape(param.num_box, -1, height, width)
        score = logistic(data[:, self.numbers - 1])
        numbers = data[:, :4]
        if param.gaussian_box:
            score = score * (1 - logistic(data[:, 1:8:2]).mean(axis=1))
            numbers = data[:, 0:8:2]
        pixels = int(param.anchors_scale[scale])
        boxes = corners(
            predicted_boxes(numbers, self.biases[scale], (width * pixels, height * pixels), activated=False)
        )
        scores = score[:, None] * logistic(data[:, self.numbers :])
        box, label, y, x = np.nonzero((scores > param.confidence_threshold) & np.isfinite(scores))
        found = boxes[box, y, x]
        table = np.column_stack([label + 1.0, scores[box, label, y, x], found])
        order = np.lexsort((label, box, x, y))  # by pixel, box and class, which decides between equal scores
        return np.asarray(table[order][np.isfinite(table[order]).all(axis=1)])
