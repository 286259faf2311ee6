"""What the layers of YOLO share: the numbers of a bottom as boxes, labels, and the rows of detections.

A bottom (N, A (5 + classes), H, W) has for each of A boxes a pixel x, y, w, h, the score of an object, and the classes'.
Box a of pixel (i, j) has the centre ((j + x) / W, (i + y) / H), x and y after the logistic function, and the size
(exp(w) bias_w / width, exp(h) bias_h / height) in units of the image, ``width`` and ``height`` being the units of the biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.boxes import suppress

LABEL_COLUMNS = 5
"""Numbers of an object in labels of YOLO: class, centre x, y, width, height."""


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))"""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """The softmax of x along an axis."""
    part = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(part / part.sum(axis=axis, keepdims=True))


def check_biases(layer: Layer, block: str, biases: Sequence[float], boxes: int) -> np.ndarray:
    """(boxes, 2): width and height of each box; raises DefinitionError for another number, or sizes that are not positive."""
    values = np.array(biases, np.float64)
    if len(values) < 2 * boxes or len(values) % 2:
        raise layer.error(f"biases are two numbers a box: {2 * boxes} are needed, not {len(values)}", block)
    if not ((values > 0) & np.isfinite(values)).all():
        raise layer.error("biases must be above 0", block, "biases", 0)
    return values.reshape(-1, 2)


def check_map(layer: Layer, blob: Blob, boxes: int, numbers: int) -> None:
    """Raises ShapeError unless the blob has ``boxes`` times ``numbers`` channels."""
    if blob.num_axes != 4 or blob.channels != boxes * numbers:
        raise layer.shape_error(
            f'"{blob.name}" must be (N, {boxes * numbers}, H, W), for {boxes} boxes of {numbers} numbers: {blob.shape}'
        )


def check_labels(layer: Layer, blob: Blob, images: int) -> None:
    """Raises ShapeError unless the blob has rows of five numbers for each image."""
    if blob.num != images or blob.count_of(1) % LABEL_COLUMNS:
        raise layer.shape_error(
            f'"{blob.name}" must have rows of class, x, y, width, height for each of {images} images: {blob.shape}'
        )


def read_labels(layer: Layer, blob: Blob, image: int, classes: int) -> np.ndarray:
    """(n, 5) float64: the objects of an image, up to the first row without a width.

    raises  BatchError for a class out of range, a centre outside the image, or a size that is not positive
    """
    rows = blob.data[image].reshape(-1, LABEL_COLUMNS).astype(np.float64)
    empty = np.flatnonzero(rows[:, 3] == 0)
    rows = rows[: empty[0]] if len(empty) else rows
    wrong = ~np.isfinite(rows).all(axis=1) | ~((rows[:, 0] >= 0) & (rows[:, 0] < classes))
    wrong |= ~((rows[:, 1:3] >= 0) & (rows[:, 1:3] <= 1)).all(axis=1) | ~(rows[:, 3:] > 0).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise layer.batch_error(
            f"object {row} of image {image} is {', '.join(f'{v:g}' for v in rows[row])}: a class from 0 to {classes - 1}, "
            "a centre from 0 to 1 and a size above 0 are needed"
        )
    return np.asarray(rows)


def predicted_boxes(
    data: np.ndarray, biases: np.ndarray, unit: tuple[float, float], activated: bool = True
) -> np.ndarray:
    """(A, H, W, 4): centre and size of each box.

    data       (A, 4 or more, H, W): x, y, w, h
    biases     (A, 2)
    unit       width and height of the image in units of the biases
    activated  whether x and y are after the logistic function
    """
    height, width = data.shape[2:]
    places = data[:, :2] if activated else logistic(data[:, :2])
    x = (places[:, 0] + np.arange(width)) / width
    y = (places[:, 1] + np.arange(height)[:, None]) / height
    with np.errstate(over="ignore"):
        w, h = (np.exp(data[:, 2 + k]) * biases[:, k, None, None] / unit[k] for k in range(2))
    return np.stack([x, y, w, h], axis=-1)


def corners(boxes: np.ndarray) -> np.ndarray:
    """xmin, ymin, xmax, ymax of boxes given by centre and size, along the last axis."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


@kernel
def best_overlaps(boxes, truths, best):
    """The largest intersection over union of boxes (n, 4) with truths (m, 4), all by centre and size.  [overwrites best]"""
    for i in range(len(boxes)):
        best[i] = 0.0
        x, y, w, h = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        for j in range(len(truths)):
            t = truths[j]
            wide = min(x + w / 2, t[0] + t[2] / 2) - max(x - w / 2, t[0] - t[2] / 2)
            high = min(y + h / 2, t[1] + t[3] / 2) - max(y - h / 2, t[1] - t[3] / 2)
            if wide > 0 and high > 0:
                best[i] = max(best[i], wide * high / (w * h + t[2] * t[3] - wide * high))


def shape_overlaps(sizes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(n) intersection over union of boxes of sizes (n, 2) with one of this size, on one centre."""
    common = np.minimum(sizes, size).prod(axis=1)
    return np.asarray(common / (sizes.prod(axis=1) + size.prod() - common))


def put_detections(top: Blobs, found: list[np.ndarray], threshold: float) -> None:
    """Writes the rows of detections, suppressed whatever their class, into the top: (1, 1, K, 7).

    found      for each image (n, 6): class, score, corners
    threshold  overlap from which on a box with a lower score goes
    """
    rows: list[np.ndarray] = []
    for image, table in enumerate(found):
        ordered = table[np.argsort(-table[:, 1], kind="stable")]
        kept = np.zeros(len(ordered), np.bool_)
        suppress(np.ascontiguousarray(ordered[:, 2:]), float(np.nextafter(np.float64(threshold), -1.0)), 1.0, kept)
        rows.append(np.column_stack([np.full(int(kept.sum()), image), ordered[kept]]))
    result = np.concatenate(rows) if rows else np.empty((0, 7))
    if not len(result):
        result = np.full((max(1, len(found)), 7), -1.0)
        result[:, 0] = np.arange(len(result))
    top[0].reshape(1, 1, *result.shape)
    top[0].data[0, 0] = result


def check_scores(layer: Layer, block: str, param: Any) -> None:
    """Raises DefinitionError for numbers of classes and boxes and thresholds without a meaning."""
    for name in ("num_classes", "num_box"):
        if getattr(param, name) < 1:
            raise layer.error(f"{name} must be at least 1", block, name)
    if not param.nms_threshold > 0:
        raise layer.error("nms_threshold must be above 0", block, "nms_threshold")
