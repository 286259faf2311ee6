"""Which prior boxes get which object, and which boxes without one count: the choices of MultiBoxLoss for one image."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.boxes import inside_image, overlaps, suppress

NONE = -1
"""Index of the object of a box without one."""
OUTSIDE = -2
"""Index of a box that does not count because it reaches beyond the image."""
LEAST = 1e-6
"""Overlaps up to this are none."""


@kernel
def _match(table, threshold, match, best):
    """Matches boxes and objects by their overlaps.  [overwrites match, best]

    table      (boxes, objects)
    threshold  least overlap of boxes beyond the best of each object; above 1: only these are matched
    match      (boxes) NONE, or OUTSIDE; gets the objects
    best       (boxes) the largest overlap of each box
    """
    count, objects = table.shape
    for i in range(count):
        best[i] = 0.0
        if match[i] == NONE:
            for j in range(objects):
                best[i] = max(best[i], table[i, j])
    taken = np.zeros(objects, np.bool_)
    for _ in range(objects):  # the largest overlap of a free box and a free object, over and over
        top, box, thing = LEAST, -1, -1
        for i in range(count):
            if match[i] == NONE and best[i] > top:
                for j in range(objects):
                    if not taken[j] and table[i, j] > top:
                        top, box, thing = table[i, j], i, j
        if box < 0:
            break
        match[box], best[box], taken[thing] = thing, top, True
    for i in range(count):
        if match[i] == NONE and best[i] >= threshold and best[i] > LEAST:
            for j in range(objects):
                if table[i, j] == best[i]:
                    match[i] = j
                    break


def match_boxes(boxes: np.ndarray, objects: np.ndarray, param: Any) -> tuple[np.ndarray, np.ndarray]:
    """The object of each box (NONE, OUTSIDE), and its largest overlap with one; both (boxes).

    boxes    (P, 4), prior or predicted
    objects  (n, 4)
    param    MultiBoxLossParameter
    """
    match = np.full(len(boxes), NONE, np.int64)
    if param.ignore_cross_boundary_bbox:
        match[~inside_image(boxes)] = OUTSIDE
    best = np.zeros(len(boxes))
    per_prediction = param.match_type == pb.MultiBoxLossParameter.PER_PREDICTION
    _match(overlaps(boxes, objects), float(param.overlap_threshold) if per_prediction else np.inf, match, best)
    return match, best


def mining_type(param: Any) -> int:
    """The mining type: the older do_neg_mining where it is given alone."""
    if param.HasField("do_neg_mining") and not param.HasField("mining_type"):
        names = pb.MultiBoxLossParameter
        return int(names.MAX_NEGATIVE if param.do_neg_mining else names.NONE)
    return int(param.mining_type)


def mine(
    match: np.ndarray, best: np.ndarray, losses: np.ndarray, boxes: np.ndarray, param: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The match after mining, and which boxes without an object count: (boxes) bool.

    match, best  as of ``match_boxes``
    losses       (boxes) loss of each
    boxes        (boxes, 4), for suppression
    """
    hard = mining_type(param) == pb.MultiBoxLossParameter.HARD_EXAMPLE
    able = np.ones(len(match), np.bool_) if hard else (match == NONE) & (best < param.neg_overlap)
    count = int(param.sample_size) if hard else int((match >= 0).sum() * np.float32(param.neg_pos_ratio))
    chosen = np.flatnonzero(able)
    chosen = chosen[np.argsort(-losses[chosen], kind="stable")]
    if param.HasField("nms_param") and param.nms_param.nms_threshold > 0:
        if param.nms_param.HasField("top_k") and param.nms_param.top_k >= 0:
            chosen = chosen[: param.nms_param.top_k]
        kept = np.zeros(len(chosen), np.bool_)
        suppress(boxes[chosen], float(param.nms_param.nms_threshold), 1.0, kept)
        chosen = chosen[kept]
    selected = np.zeros(len(match), np.bool_)
    selected[chosen[:count]] = True
    negative = selected & (match == NONE)
    return np.where((match >= 0) & ~selected, NONE, match) if hard else match, negative
