"""Accuracy: the share of labels whose class is among the ``top_k`` best scores; optionally per class.

A class ranks above the label's class when its score is at least as high (ties count against the label). Ignored labels
do not count. There is no gradient.

bottom  scores (outer, classes, inner) along ``axis``, labels (outer, inner) as floats
top     the accuracy; optionally one accuracy a class (0 for a class without labels)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.loss import IGNORED, OUT_OF_RANGE, bad_label, class_of


@kernel
def _judge(i0, i1, thread, scores, labels, has_ignore, ignore, top_k, classes, right):
    """Writes the class of each label (or IGNORED, OUT_OF_RANGE) and whether it is among the ``top_k`` best scores."""
    for i in range(i0, i1):
        for j in range(scores.shape[2]):
            k = class_of(labels[i, j], scores.shape[1], has_ignore, ignore)
            classes[i, j] = k
            if k < 0:
                continue
            better, own = -1, scores[i, k, j]
            for c in range(scores.shape[1]):
                better += scores[i, c, j] >= own
            right[i, j] = 0 <= better < top_k  # better stays -1 where the score is NaN


@final
class Accuracy(Layer):
    TYPE: ClassVar[str] = "Accuracy"
    KIND: ClassVar[str] = "result"
    DEPLOYED: ClassVar[bool] = False
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"top {param.accuracy_param.top_k}" if param.accuracy_param.top_k != 1 else ""

    def allow_force_backward(self, index: int) -> bool:
        return False

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, scores = self.param.accuracy_param, bottom[0]
        axis = axis_of(self, scores, param.axis, "accuracy_param", "axis")
        self.fold = (scores.count_of(0, axis), scores.shape[axis], scores.count_of(axis + 1))
        self.ignore_label = (param.HasField("ignore_label"), param.ignore_label)
        places = (self.fold[0], self.fold[2])
        if bottom[1].count != places[0] * places[1]:
            raise self.shape_error(
                f"there must be a label for each prediction: {places[0] * places[1]} predictions of shape {scores.shape} "
                f"along axis {axis}, {bottom[1].count} labels of shape {bottom[1].shape}"
            )
        if not 1 <= param.top_k <= self.fold[1]:
            raise self.error(
                f"top_k must be between 1 and the number of classes: {param.top_k} of {self.fold[1]}",
                "accuracy_param",
                "top_k",
            )
        self.classes = np.zeros(places, np.int64)
        self.right = np.zeros(places, np.bool_)
        top[0].reshape(())
        if len(top) > 1:
            top[1].reshape(self.fold[1])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        scores, labels = bottom[0].data.reshape(self.fold), bottom[1].data.reshape(self.classes.shape)
        top_k = self.param.accuracy_param.top_k
        work = self.fold[1] * self.fold[2]
        spread(_judge, len(scores), work, scores, labels, *self.ignore_label, top_k, self.classes, self.right)
        if (self.classes == OUT_OF_RANGE).any():
            raise bad_label(self, labels, self.fold[1], self.ignore_label)
        counted = self.classes != IGNORED
        classes, right = self.classes[counted], self.right[counted]
        top[0].data[...] = right.mean() if right.size else 0
        if len(top) > 1:
            labelled = np.bincount(classes, minlength=self.fold[1])
            hits = np.bincount(classes[right], minlength=self.fold[1])
            top[1].data[:] = hits / np.maximum(labelled, 1)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Sets requested diffs to zero: accuracy is piecewise constant."""
        for wanted, blob in zip(propagate_down, bottom):
            if wanted:
                blob.diff[...] = 0
