"""Overlaps of two boxes and their slopes, for the box losses of Yolov3: GIoU, DIoU, CIoU.

A box is centre x, y, width, height. With intersection I, union U, the smallest box around both of area C and squared diagonal
c, and the squared distance s of the centres:

    GIOU  I / U - (C - U) / C
    DIOU  I / U - (s / c)^0.6        its slope without the exponent
    CIOU  I / U - s / c - alpha v    v = 4 / pi^2 (atan(w / h of the object) - atan(w / h))^2, alpha = v / (1 - I / U + v)

Slopes are the authors': by the width and the height those of I / U and of GIOU count twice, that of v is multiplied by
w^2 + h^2 and alpha is constant; without an intersection only the second term counts.

Ref: Rezatofighi et al. 2019, Generalized IoU; Zheng et al. 2020, Distance-IoU; eric612, MobileNet-YOLO
"""

from __future__ import annotations

import math

import numpy as np

from sslnet import sslnet_pb2 as pb

KINDS = pb.Yolov3Parameter
TINY = 1e-6


def _ends(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return box[:2] - box[2:] / 2, box[:2] + box[2:] / 2


def overlap(box: np.ndarray, truth: np.ndarray, kind: int) -> float:
    """The overlap of this kind; IOU and MSE: I / U."""
    (low, high), (first, last) = _ends(box), _ends(truth)
    common = np.maximum(np.minimum(high, last) - np.maximum(low, first), 0).prod()
    union = box[2:].prod() + truth[2:].prod() - common
    plain = float(common / union) if union > 0 else 0.0
    around = np.maximum(high, last) - np.minimum(low, first)
    if kind == KINDS.GIOU:
        whole = float(around.prod())
        return plain - (whole - float(union)) / whole if whole else plain
    diagonal, distance = float((around**2).sum()), float(((box[:2] - truth[:2]) ** 2).sum())
    if kind not in (KINDS.DIOU, KINDS.CIOU) or not diagonal:
        return plain
    if kind == KINDS.DIOU:
        return float(plain - (distance / diagonal) ** 0.6)
    shape = _shape_loss(box, truth)
    return plain - distance / diagonal - shape / (1 - plain + shape + TINY) * shape


def _shape_loss(box: np.ndarray, truth: np.ndarray) -> float:
    return 4 / math.pi**2 * (math.atan(truth[2] / truth[3]) - math.atan(box[2] / box[3])) ** 2


def slope(box: np.ndarray, truth: np.ndarray, kind: int) -> np.ndarray:
    """(4) the authors' slope of the overlap by x, y, w, h; kind IOU counts as DIOU without its second term."""
    (low, high), (first, last) = _ends(box), _ends(truth)
    inner = np.minimum(high, last) - np.maximum(low, first)
    around = np.maximum(high, last) - np.minimum(low, first)
    common, union = inner.prod(), box[2:].prod() + truth[2:].prod() - inner.prod()
    # of both ends of each axis: (low, high) x (x, y)
    inner_by = np.stack([-(low > first).astype(float), (high < last).astype(float)])
    around_by = np.stack([-(low < first).astype(float), (high > last).astype(float)])
    area_by = np.stack([-box[3:1:-1], box[3:1:-1]])
    common_by = inner_by * inner[::-1]
    union_by = area_by - common_by
    by_ends = (union * common_by - common * union_by) / union**2 if union > 0 else np.zeros((2, 2))
    apart = bool((inner <= 0).any())
    if kind == KINDS.GIOU:
        whole = around.prod()
        whole_by = around_by * around[::-1]
        second = (whole * union_by - union * whole_by) / whole**2 if whole > 0 else np.zeros((2, 2))
        by_ends = second if apart else by_ends + second
    result = np.concatenate([by_ends.sum(axis=0), by_ends[1] - by_ends[0]])
    if kind not in (KINDS.DIOU, KINDS.CIOU):
        return np.asarray(result)
    diagonal, distance = (around**2).sum(), ((box[:2] - truth[:2]) ** 2).sum()
    by_center, by_size = around_by.sum(axis=0), (around_by[1] - around_by[0]) / 2
    second = np.zeros(4)
    if diagonal > 0:
        second[:2] = (2 * (truth[:2] - box[:2]) * diagonal - 2 * around * by_center * distance) / diagonal**2
        second[2:] = 2 * around * by_size * distance / diagonal**2
    if kind == KINDS.CIOU:
        shape = _shape_loss(box, truth)
        alpha = shape / (1 - (common / union if union > 0 else 0.0) + shape + TINY)
        turn = 8 / math.pi**2 * (math.atan(truth[2] / truth[3]) - math.atan(box[2] / box[3]))
        second[2:] += alpha * turn * np.array([box[3], -box[2]])
    return np.asarray(second if apart else result + second)
