"""Proposal: the regions that a region proposal network finds (Faster R-CNN).

Anchors around the centre of a box of base_size pixels: for each ratio r (height / width) a width of round(sqrt(area / r)) and
a height of round(width r), times each scale. Anchor a of pixel (i, j) is moved by feat_stride pixels of the image a pixel; its
deltas dx, dy, dw, dh move its centre by dx width, dy height, and multiply its size by exp(dw), exp(dh). Regions are cut at the
image; those narrower or lower than min_size times the scale of the image go. Of the pre_nms_topn best ones those remain that
overlap no better one by more than nms_thresh, at most post_nms_topn. A region x1, y1, x2, y2 is x2 - x1 + 1 pixels wide.

bottom  scores (N, 2 A, H, W), the background's first; deltas (N, 4 A, H, W); sizes (N or 1, 3): height, width and scale
top     regions (R, 5): image index, x1, y1, x2, y2 in pixels of the image, the best first; optionally their scores (R, 1)

Ref: Ren, He, Girshick, Sun 2015, Faster R-CNN
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.boxes import suppress
from sslnet.layers.no_gradient import NoInputGradient

BLOCK = "proposal_param"


def anchors(base: int, ratios: list[float], scales: list[float]) -> np.ndarray:
    """(A, 4): the anchors of the first pixel, by ratio, then scale."""
    center = (base - 1) / 2
    result = []
    for ratio in ratios:
        width = np.round(np.sqrt(base * base / ratio))
        height = np.round(width * ratio)
        for scale in scales:
            half = np.array([width * scale - 1, height * scale - 1]) / 2
            result.append([center - half[0], center - half[1], center + half[0], center + half[1]])
    return np.array(result)


@final
class Proposal(NoInputGradient):
    TYPE: ClassVar[str] = "Proposal"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (3, 3)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)
    DYNAMIC: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.proposal_param
        for name in ("feat_stride", "base_size"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", BLOCK, name)
        for name in ("ratio", "scale"):
            for index, value in enumerate(getattr(param, name)):
                if not 0 < value < np.inf:
                    raise self.error(f"{name} must be above 0, not {value:g}", BLOCK, name, index, value=True)
        if not param.nms_thresh >= 0:
            raise self.error("nms_thresh must be 0 or above", BLOCK, "nms_thresh")
        self.anchors = anchors(param.base_size, list(param.ratio) or [0.5, 1, 2], list(param.scale) or [8, 16, 32])

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        scores, deltas, sizes = bottom
        count = len(self.anchors)
        for blob, wanted in ((scores, 2 * count), (deltas, 4 * count)):
            if blob.num_axes != 4 or blob.channels != wanted or blob.shape[2:] != scores.shape[2:]:
                raise self.shape_error(
                    f'"{blob.name}" must be (N, {wanted}, H, W) for {count} anchors a pixel: {blob.shape}'
                )
        if sizes.num not in (1, scores.num) or sizes.count_of(1) < 3:
            raise self.shape_error(f'"{sizes.name}" must be (N, 3): height, width and scale: {sizes.shape}')
        rows = max(1, scores.num) * int(self.param.proposal_param.post_nms_topn or 1)
        top[0].reshape(rows, 5)
        if len(top) > 1:
            top[1].reshape(rows, 1)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, (_, _, height, width) = self.param.proposal_param, bottom[0].shape
        stride = int(param.feat_stride)
        y, x = np.mgrid[0:height, 0:width] * stride
        shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
        boxes = (self.anchors + shifts).reshape(-1, 4)
        found = []
        for image in range(bottom[0].num):
            scores = bottom[0].data[image, len(self.anchors) :].transpose(1, 2, 0).reshape(-1).astype(np.float64)
            deltas = bottom[1].data[image].reshape(len(self.anchors), 4, height, width)
            deltas = deltas.transpose(2, 3, 0, 1).reshape(-1, 4).astype(np.float64)
            size = bottom[2].data.reshape(bottom[2].num, -1)[image % bottom[2].num, :3].astype(np.float64)
            if not (np.isfinite(size).all() and (size > 0).all()):
                raise self.batch_error(f"the size of image {image} is {', '.join(f'{v:g}' for v in size)}")
            regions, kept = self._regions(boxes, deltas, scores, size)
            found.append((np.column_stack([np.full(len(regions), image), regions]), kept))
        regions = np.concatenate([np.empty((0, 5)), *(rows for rows, _ in found)])
        top[0].reshape(len(regions), 5)
        top[0].data[...] = regions
        if len(top) > 1:
            top[1].reshape(len(regions), 1)
            top[1].data[...] = np.concatenate([np.empty(0), *(kept for _, kept in found)])[:, None]

    def _regions(
        self, boxes: np.ndarray, deltas: np.ndarray, scores: np.ndarray, size: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The regions of one image (R, 4) and their scores (R), the best first."""
        param = self.param.proposal_param
        sizes = boxes[:, 2:] - boxes[:, :2] + 1
        centers = boxes[:, :2] + sizes / 2 + deltas[:, :2] * sizes
        with np.errstate(over="ignore", invalid="ignore"):
            half = np.exp(deltas[:, 2:]) * sizes / 2
            moved = np.concatenate([centers - half, centers + half], axis=1)
            moved = np.clip(moved, 0, np.array([size[1], size[0], size[1], size[0]]) - 1)
            wide = moved[:, 2:] - moved[:, :2] + 1
            good = (wide >= param.min_size * size[2]).all(axis=1) & ~np.isnan(scores) & ~np.isnan(moved).any(axis=1)
        order = np.flatnonzero(good)
        order = order[np.argsort(-scores[order], kind="stable")]
        if param.pre_nms_topn:
            order = order[: param.pre_nms_topn]
        kept = np.zeros(len(order), np.bool_)
        suppress(moved[order] + np.array([0.0, 0.0, 1.0, 1.0]), float(param.nms_thresh), 1.0, kept)
        order = order[kept]
        if param.post_nms_topn:
            order = order[: param.post_nms_topn]
        return moved[order], scores[order]
