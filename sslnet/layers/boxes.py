"""Boxes of detection nets: overlaps, suppression, locations relative to prior boxes, and the objects of a label blob.

A box is xmin, ymin, xmax, ymax, in units of the image's width and height. A box whose xmax < xmin or ymax < ymin has no
area, and overlaps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.base import Layer

LABEL_COLUMNS = 8
"""Numbers of an object in a label blob: image, class, instance, xmin, ymin, xmax, ymax, difficult."""


@kernel
def box_overlap(x1, y1, x2, y2, b):
    """Intersection over union of a box and the box b."""
    wide, high = min(x2, b[2]) - max(x1, b[0]), min(y2, b[3]) - max(y1, b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    common = wide * high
    return common / ((x2 - x1) * (y2 - y1) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@kernel
def box_overlaps(boxes, others, result):
    """Intersection over union of boxes (n, 4) and others (m, 4): (n, m)."""
    for i in range(len(boxes)):
        for j in range(len(others)):
            result[i, j] = box_overlap(boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3], others[j])


@kernel
def suppress(boxes, threshold, eta, kept):
    """Marks boxes (n, 4), the best first, that overlap no kept one by more than the threshold; returns their number."""
    count = 0
    chosen = np.empty(len(boxes), np.int64)
    for i in range(len(boxes)):
        keep = True
        for k in range(count):
            if box_overlap(boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3], boxes[chosen[k]]) > threshold:
                keep = False
                break
        kept[i] = keep
        if keep:
            chosen[count] = i
            count += 1
            if eta < 1 and threshold > 0.5:
                threshold *= eta
    return count


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and others (m, 4): (n, m) float64."""
    result = np.zeros((len(boxes), len(others)))
    box_overlaps(boxes, others, result)
    return result


def decode(locations: np.ndarray, priors: np.ndarray, variances: np.ndarray, code: int) -> np.ndarray:
    """The corners of predicted boxes (P, 4), given locations, prior boxes and variances (P, 4), float64."""
    moved = locations * variances
    if code == pb.DetectionOutputParameter.CORNER:
        return np.asarray(priors + moved)
    sizes = priors[:, 2:] - priors[:, :2]
    if code == pb.DetectionOutputParameter.CORNER_SIZE:
        return np.asarray(priors + moved * np.tile(sizes, 2))
    centers = (priors[:, :2] + priors[:, 2:]) / 2 + moved[:, :2] * sizes
    with np.errstate(over="ignore"):
        half = np.exp(moved[:, 2:]) * sizes / 2
    return np.concatenate([centers - half, centers + half], axis=1)


def encode(boxes: np.ndarray, priors: np.ndarray, variances: np.ndarray, code: int) -> np.ndarray:
    """The locations (P, 4) that ``decode`` makes these boxes of. Boxes and priors have an area."""
    if code == pb.DetectionOutputParameter.CORNER:
        return np.asarray((boxes - priors) / variances)
    sizes = priors[:, 2:] - priors[:, :2]
    if code == pb.DetectionOutputParameter.CORNER_SIZE:
        return np.asarray((boxes - priors) / np.tile(sizes, 2) / variances)
    moved = (boxes[:, :2] + boxes[:, 2:] - priors[:, :2] - priors[:, 2:]) / 2 / sizes
    scaled = np.log((boxes[:, 2:] - boxes[:, :2]) / sizes)
    return np.asarray(np.concatenate([moved, scaled], axis=1) / variances)


def inside_image(boxes: np.ndarray) -> np.ndarray:
    """(P) bool: the boxes that do not reach beyond the image."""
    return np.asarray(((boxes >= 0) & (boxes <= 1)).all(axis=1))


@dataclass(frozen=True)
class Objects:
    """The objects of one image: boxes (n, 4), classes (n), and which are difficult (n)."""

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


def label_rows(layer: Layer, blob: Blob) -> int:
    """Number of rows of a label blob (1, 1, M, 8); raises ShapeError for other shapes."""
    if blob.count % LABEL_COLUMNS or (blob.num_axes > 1 and blob.shape[-1] != LABEL_COLUMNS):
        raise layer.shape_error(
            f"objects are eight numbers each (image, class, instance, xmin, ymin, xmax, ymax, difficult): "
            f'"{blob.name}" has shape {blob.shape}'
        )
    return blob.count // LABEL_COLUMNS


def read_objects(
    layer: Layer, rows: np.ndarray, images: int, classes: int, background: int, difficult: bool
) -> dict[int, Objects]:
    """The objects of each image that has any.

    rows        (M, 8); rows with a negative image are empty
    difficult   whether difficult objects count
    raises      BatchError for a number that is not finite, an image or a class out of range, or the background's class
    """
    rows = rows.astype(np.float64)
    rows = rows[~(rows[:, 0] < 0)]
    whole = rows[:, :2]
    wrong = ~np.isfinite(rows).all(axis=1) | (whole != np.floor(whole)).any(axis=1) | ~(rows[:, 0] < images)
    wrong |= ~((rows[:, 1] >= 0) & (rows[:, 1] < classes)) | (rows[:, 1] == background)
    if wrong.any():
        row = int(np.argmax(wrong))
        numbers = ", ".join(f"{value:g}" for value in rows[row])
        raise layer.batch_error(
            f"object {row} of the labels is {numbers}: image 0 to {images - 1}, a class of 0 to {classes - 1} that is "
            f"not the background, {background}, and finite corners are needed",
            hint="num_classes counts the background too",
        )
    if not difficult:
        rows = rows[rows[:, 7] == 0]
    return {
        int(image): Objects(own[:, 3:7].copy(), own[:, 1].astype(np.int64), own[:, 7] != 0)
        for image in np.unique(rows[:, 0])
        for own in [rows[rows[:, 0] == image]]
    }
