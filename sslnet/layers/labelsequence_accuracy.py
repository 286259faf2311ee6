"""LabelsequenceAccuracy: the share of sequences that are read without an error, by the best class of each time step.

The reading of a sequence: the best class of each step (of equal ones the first), equal classes in a row taken once, blanks
left out. It is right if it equals the labels without blanks.

bottoms  scores (N, T, classes); labels (N, L), filled up with blanks
top      the accuracy

Ref: yalecyu's crnn.caffe
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.no_gradient import NoInputGradient


def best_path(scores: np.ndarray, blank: int) -> list[int]:
    """The reading of one sequence of scores (T, classes)."""
    path = scores.argmax(axis=1)
    first = np.concatenate([[True], path[1:] != path[:-1]]) if len(path) else np.zeros(0, np.bool_)
    return [int(k) for k in path[first & (path != blank)]]


@final
class LabelsequenceAccuracy(NoInputGradient):
    TYPE: ClassVar[str] = "LabelsequenceAccuracy"
    KIND: ClassVar[str] = "result"
    DEPLOYED: ClassVar[bool] = False
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        scores, labels = bottom
        if scores.num_axes != 3 or labels.num_axes < 1 or labels.shape[0] != scores.shape[0]:
            message = f"scores are (N, T, classes) and labels (N, L): {scores.shape} and {labels.shape}"
            raise self.shape_error(message)
        if scores.shape[2] < 1:
            raise self.shape_error(f"there are no classes: {scores.shape}")
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        blank = self.param.labelsequence_accuracy_param.blank_label
        labels = bottom[1].data.reshape(bottom[1].shape[0], -1)
        hits = [
            best_path(scores, blank) == [int(k) for k in row if k != blank]
            for scores, row in zip(bottom[0].data, labels)
        ]
        top[0].data[...] = np.mean(hits) if hits else 0
