"""YoloDetectionOutput: the boxes that YOLO v2 finds, of one or two feature maps.

The score of a box is that of an object, after the logistic function, times the largest softmax of its classes; boxes with
confidence_threshold or more remain unless a better one of the image, of any class, overlaps them by nms_threshold or more.

bottom  (N, num_box (5 + num_classes), H, W), see sslnet.layers.yolo; biases in pixels of the bottom
top     (1, 1, K, 7): image, class + 1, score, xmin, ymin, xmax, ymax in units of the image, by image, the best first;
        without any box one row an image of -1, the first number apart

Ref: Redmon, Farhadi 2017, YOLO9000; eric612, MobileNet-YOLO
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.no_gradient import NoInputGradient
from sslnet.layers.yolo import (
    check_biases,
    check_map,
    check_scores,
    corners,
    logistic,
    predicted_boxes,
    put_detections,
    softmax,
)

BLOCK = "yolo_detection_output_param"


@final
class YoloDetectionOutput(NoInputGradient):
    TYPE: ClassVar[str] = "YoloDetectionOutput"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 2)
    DYNAMIC: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.yolo_detection_output_param
        check_scores(self, BLOCK, param)
        if param.coords != 4:
            raise self.error("coords must be 4", BLOCK, "coords")
        self.biases = check_biases(self, BLOCK, param.biases, param.num_box)[: param.num_box]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.yolo_detection_output_param
        for blob in bottom:
            check_map(self, blob, param.num_box, 5 + param.num_classes)
            if blob.num != bottom[0].num:
                raise self.shape_error(f"all bottoms must have as many images: {bottom[0].shape}, {blob.shape}")
        top[0].reshape(1, 1, max(1, bottom[0].num), 7)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.yolo_detection_output_param
        found = []
        for image in range(bottom[0].num):
            parts = [self._boxes(blob.data[image].astype(np.float64)) for blob in bottom]
            found.append(np.concatenate(parts))
        put_detections(top, found, float(param.nms_threshold))

    def _boxes(self, data: np.ndarray) -> np.ndarray:
        """(n, 6): class, score and corners of the boxes of one feature map."""
        param = self.param.yolo_detection_output_param
        height, width = data.shape[1:]
        data = data.reshape(param.num_box, -1, height, width)
        classes = softmax(data[:, 5:], 1)
        score = logistic(data[:, 4]) * classes.max(axis=1)
        boxes = corners(predicted_boxes(data, self.biases, (width, height), activated=False))
        table = np.concatenate([(classes.argmax(axis=1) + 1.0)[..., None], score[..., None], boxes], axis=-1)
        table = table.transpose(1, 2, 0, 3).reshape(-1, 6)
        return np.asarray(table[(table[:, 1] >= param.confidence_threshold) & np.isfinite(table).all(axis=1)])
