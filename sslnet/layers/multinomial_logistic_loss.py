"""MultinomialLogisticLoss: minus the mean logarithm of the predicted probability of the true class.

    loss = -sum of log(max(p_c, 1e-20)) / N, c the image's label      dp_c = -w / (N max(p_c, 1e-20)), 0 for the others

p       (N, classes ...); all values of an image count as classes
labels  (N), whole numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss, bad_label

LEAST_PROBABILITY = 1e-20


@final
class MultinomialLogisticLoss(Loss):
    TYPE: ClassVar[str] = "MultinomialLogisticLoss"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.fold = self.scores_and_labels(bottom)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = -np.log(self._probabilities(bottom), dtype=np.float64).sum() / max(1, self.fold[0])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dp = bottom[0].diff.reshape(self.fold)
        dp[...] = 0
        factor = -float(top[0].diff) / max(1, self.fold[0])
        dp[self._true(bottom)] = factor / self._probabilities(bottom)

    def _true(self, bottom: Blobs) -> tuple[np.ndarray, np.ndarray]:
        """Index arrays (images, classes) of the true classes in the probabilities."""
        labels = bottom[1].data.reshape(-1)
        if not ((labels >= 0) & (labels < self.fold[1])).all():
            raise bad_label(self, labels[:, None], self.fold[1], (False, 0))
        return np.arange(self.fold[0]), labels.astype(np.int64)

    def _probabilities(self, bottom: Blobs) -> np.ndarray:
        """The probabilities of the true classes, at least LEAST_PROBABILITY."""
        found: np.ndarray = np.maximum(bottom[0].data.reshape(self.fold)[self._true(bottom)], LEAST_PROBABILITY)
        return found
