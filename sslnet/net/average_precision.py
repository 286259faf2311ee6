"""The mean average precision of the detections of a whole test, from the rows of DetectionEvaluate layers.

The detections of a class, the best first: precision is the share of the right ones among the first n, recall the number of
these divided by that of the objects. The average precision is the area under precision over recall:

    11point      mean of the largest precision at recall r or more, r = 0, 0.1, ..., 1 (PASCAL VOC 2007)
    MaxIntegral  integral, the precision between two detections being the largest from the first of them on, as in SSD
    Integral     integral of the precision as it is

The mean is that over the classes with objects; a class without a detection counts as 0.

Ref: Everingham et al. 2010, the PASCAL visual object classes challenge
"""

from __future__ import annotations

import math

import numpy as np

from sslnet.net.net import Net

VERSIONS = ("11point", "MaxIntegral", "Integral")
DEFAULT = "Integral"


class DetectionScore:
    """Collects the outputs of the DetectionEvaluate layers of a net over the batches of a test."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._rows: dict[str, list[np.ndarray]] = {
            names[0]: []
            for layer, names in zip(net.layers, net.top_names)
            if layer.TYPE == "DetectionEvaluate" and names[0] in net.outputs
        }

    @property
    def names(self) -> list[str]:
        """The outputs that are collected: they have no mean."""
        return list(self._rows)

    def add(self) -> None:
        """Notes the outputs of the last forward pass."""
        for name, rows in self._rows.items():
            rows.append(np.array(self._net.blobs[name].data, np.float64).reshape(-1, 5))

    def classes(self, name: str, version: str = DEFAULT) -> dict[int, float]:
        """The average precision of each class with objects."""
        rows = np.concatenate([np.empty((0, 5)), *self._rows[name]])
        heads = rows[rows[:, 0] == -1]
        found = rows[rows[:, 0] != -1]
        found = found[found[:, 3:].any(axis=1)]  # neither right nor wrong: a difficult object
        result = {}
        for label in np.unique(heads[:, 1]):
            objects = int(heads[heads[:, 1] == label, 2].sum())
            if objects:
                own = found[found[:, 1] == label]
                result[int(label)] = average_precision(own[:, 2], own[:, 3] > 0, objects, version)
        return result

    def mean(self, name: str, version: str = DEFAULT) -> float:
        """The mean average precision; not a number where no image has objects."""
        found = self.classes(name, version)
        return sum(found.values()) / len(found) if found else math.nan


def average_precision(scores: np.ndarray, right: np.ndarray, objects: int, version: str = DEFAULT) -> float:
    """The average precision of one class.

    scores   (n) of its detections
    right    (n) bool
    objects  number of its objects, above 0
    """
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    precision, recall = hits / np.arange(1, len(order) + 1), hits / objects
    if version == "11point":
        return sum(float(precision[recall >= r / 10 - 1e-12].max(initial=0)) for r in range(11)) / 11
    if version == "MaxIntegral":
        largest = np.maximum.accumulate(precision[::-1])[::-1]
        return float(recall[0] * largest[0] + (np.diff(recall) * largest[:-1]).sum())
    return float((np.diff(recall, prepend=0.0) * precision).sum())
