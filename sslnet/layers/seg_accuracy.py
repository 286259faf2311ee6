"""SegAccuracy: accuracy, mean recall and mean intersection over union of the classes of pixels.

Of the confusion matrix m (labels, best classes; of equal scores the last class): sum of m_kk / sum of m; the means of
m_kk / row k over the classes with labels, and of m_kk / (row k + column k - m_kk) over the classes that occur. With
``reset: false`` the matrix is summed over all passes, as if they were one batch.

bottoms  scores (N, classes, H, W), labels (N, 1, H, W)
top      (1, 1, 1, 3)

Ref: DeepLab's and PSPNet's forks of Caffe
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.no_gradient import NoInputGradient


def _mean(part: np.ndarray, whole: np.ndarray) -> float:
    """The mean of part / whole where the whole is not 0."""
    counted = whole > 0
    return float((part[counted] / whole[counted]).mean()) if counted.any() else 0.0


@final
class SegAccuracy(NoInputGradient):
    TYPE: ClassVar[str] = "SegAccuracy"
    KIND: ClassVar[str] = "result"
    DEPLOYED: ClassVar[bool] = False
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._counts = np.zeros((0, 0), np.int64)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        scores, labels = bottom
        if scores.num_axes < 2 or scores.shape[1] < 1 or labels.count * scores.shape[1] != scores.count:
            message = f"scores are (N, classes, H, W), labels (N, 1, H, W): {scores.shape} and {labels.shape}"
            raise self.shape_error(message)
        if len(self._counts) != scores.shape[1]:
            self._counts = np.zeros((scores.shape[1], scores.shape[1]), np.int64)
        top[0].reshape(1, 1, 1, 3)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, scores = self.param.seg_accuracy_param, bottom[0].data
        classes = scores.shape[1]
        best = classes - 1 - scores[:, ::-1].argmax(axis=1).reshape(-1)
        labels = bottom[1].data.reshape(-1)
        counted = ~np.isin(labels, list(param.ignore_label))
        labels, best = labels[counted], best[counted]
        wrong = ~((labels >= 0) & (labels < classes))
        if wrong.any():
            message = f"label {labels[wrong][0]:g} is out of range: the {classes} classes are 0 .. {classes - 1}"
            raise self.batch_error(message, hint="ignore_label: 255 leaves out the pixels of that label")
        if param.reset:
            self._counts[...] = 0
        self._counts += np.bincount(labels.astype(np.int64) * classes + best, minlength=classes**2).reshape(
            classes, classes
        )
        hits, rows, columns = np.diag(self._counts), self._counts.sum(axis=1), self._counts.sum(axis=0)
        total = int(rows.sum())
        result = [hits.sum() / total if total else 0.0, _mean(hits, rows), _mean(hits, rows + columns - hits)]
        top[0].data[...] = np.reshape(result, (1, 1, 1, 3))

    def state(self) -> bytes:
        keep = not self.param.seg_accuracy_param.reset and self._counts.any()
        return self._counts.tobytes() if keep else b""

    def set_state(self, state: bytes) -> None:
        self._counts[...] = np.frombuffer(state, np.int64).reshape(self._counts.shape) if state else 0
