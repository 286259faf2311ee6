"""DetectionOutput: the boxes that an SSD finds: locations decoded, boxes of a class that overlap suppressed.

A location l relative to a prior box p with variances v gives the box p + v l (CORNER), the centre p_c + v l p_size and the
size p_size exp(v l) (CENTER_SIZE), or p + v l p_size (CORNER_SIZE); with variance_encoded_in_target without v. Of each class
but the background, boxes with a score above confidence_threshold, at most the nms_param.top_k best, are kept in the order
of their scores unless they overlap a kept one by more than nms_threshold (intersection over union). Of each image the
keep_top_k best of all classes remain.

bottom  locations (N, 4 P, or 4 P classes), scores (N, P classes), priors (1, 2, 4 P)
top     (1, 1, K, 7): image, class, score, xmin, ymin, xmax, ymax, by image, class and score; without any box one row an
        image of -1, the first number apart

Ref: Liu et al. 2016, SSD
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.boxes import decode, suppress
from sslnet.layers.no_gradient import NoInputGradient


@final
class DetectionOutput(NoInputGradient):
    TYPE: ClassVar[str] = "DetectionOutput"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (3, 3)
    DYNAMIC: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param, block = self.param.detection_output_param, "detection_output_param"
        if param.num_classes < 1:
            raise self.error("num_classes must be at least 1", block, "num_classes")
        if param.nms_param.nms_threshold < 0:
            raise self.error("nms_threshold must be 0 or above", block, "nms_param", "nms_threshold")
        if not 0 < param.nms_param.eta <= 1:
            raise self.error("eta must be above 0 and at most 1", block, "nms_param", "eta")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, (locations, scores, priors) = self.param.detection_output_param, bottom
        if priors.shape[:2] != (1, 2) or priors.count % 8:
            raise self.shape_error(f'priors must be (1, 2, 4 P): "{priors.name}" has shape {priors.shape}')
        self.priors = priors.count // 8
        self.boxes = 1 if param.share_location else int(param.num_classes)
        wanted = ((locations, 4 * self.priors * self.boxes), (scores, self.priors * int(param.num_classes)))
        for blob, count in wanted:
            if blob.num != locations.num or blob.count_of(1) != count:
                raise self.shape_error(
                    f'"{blob.name}" must have {count} values an image for {self.priors} priors and '
                    f"{param.num_classes} classes: {blob.shape}"
                )
        top[0].reshape(1, 1, max(1, locations.num), 7)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        classes = int(self.param.detection_output_param.num_classes)
        images = bottom[0].num
        locations = bottom[0].data.reshape(images, self.priors, self.boxes, 4).astype(np.float64)
        scores = bottom[1].data.reshape(images, self.priors, classes)
        priors, variances = bottom[2].data.reshape(2, self.priors, 4).astype(np.float64)
        rows = [
            np.concatenate([np.full((len(found), 1), image), found], axis=1)
            for image in range(images)
            for found in [self._detect(locations[image], scores[image], priors, variances)]
        ]
        result = np.concatenate(rows) if rows else np.empty((0, 7))
        if not len(result):
            result = np.full((max(1, images), 7), -1.0)
            result[:, 0] = np.arange(len(result))
        top[0].reshape(1, 1, *result.shape)
        top[0].data[0, 0] = result

    def _detect(
        self, locations: np.ndarray, scores: np.ndarray, priors: np.ndarray, variances: np.ndarray
    ) -> np.ndarray:
        """(K, 6): class, score and corners of the boxes of one image, by class, the best first."""
        param = self.param.detection_output_param
        if param.variance_encoded_in_target:
            variances = np.ones_like(variances)
        found: list[np.ndarray] = []
        for label in range(scores.shape[1]):
            if label == param.background_label_id:
                continue
            score = scores[:, label].astype(np.float64)
            chosen = np.flatnonzero(score > param.confidence_threshold) if param.HasField("confidence_threshold") else (
                np.flatnonzero(~np.isnan(score))
            )  # fmt: skip
            chosen = chosen[np.argsort(-score[chosen], kind="stable")]
            if param.nms_param.HasField("top_k") and param.nms_param.top_k >= 0:
                chosen = chosen[: param.nms_param.top_k]
            own = locations[chosen, 0 if self.boxes == 1 else label]
            boxes = decode(own, priors[chosen], variances[chosen], param.code_type)
            kept = np.zeros(len(boxes), np.bool_)
            suppress(boxes, float(param.nms_param.nms_threshold), float(param.nms_param.eta), kept)
            chosen, boxes = chosen[kept], boxes[kept]
            found.append(np.column_stack([np.full(len(chosen), label), score[chosen], boxes]))
        result = np.concatenate(found) if found else np.empty((0, 6))
        if 0 <= param.keep_top_k < len(result):
            best = np.argsort(-result[:, 1], kind="stable")[: param.keep_top_k]
            result = result[np.sort(best)]
        return result
