"""ContrastiveLoss: pulls similar pairs together and pushes other pairs apart up to a margin.

    d^2 = |a - b|^2 of a pair; loss = sum of (d^2 for a similar pair, else max(0, margin - d)^2) / 2N
    similar: da = w / N (a - b)    else, inside the margin: da = -w / N (margin - d) / (d + 1e-4) (a - b)    db = -da

With ``legacy_version`` a pair that is not similar adds max(0, margin - d^2), da = -w / N (a - b) where d^2 < margin.

a, b      (N, values)
similar   (N), 0 or 1; there is no gradient

Ref: Hadsell, Chopra, LeCun 2006
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss

_TINY = 1e-4
"""Caffe's guard against a division by a distance of 0."""


@final
class ContrastiveLoss(Loss):
    TYPE: ClassVar[str] = "ContrastiveLoss"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (3, 3)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        a, b, similar = bottom
        if a.shape != b.shape or a.num_axes < 1 or similar.count != a.shape[0]:
            raise self.shape_error(
                f"a and b must have one shape, and there must be one number a pair: {a.shape}, {b.shape} and {similar.shape}"
            )
        self.fold = (a.shape[0], a.count_of(1))
        self._apart = np.zeros(self.fold, self.dtype)
        self._square = np.zeros(self.fold[0], self.dtype)
        top[0].reshape(())

    def allow_force_backward(self, index: int) -> bool:
        return index != 2

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        a, b = (blob.data.reshape(self.fold) for blob in bottom[:2])
        np.subtract(a, b, out=self._apart)
        np.einsum("nd,nd->n", self._apart, self._apart, out=self._square)
        param = self.param.contrastive_loss_param
        if param.legacy_version:
            other = np.maximum(0, param.margin - self._square)
        else:
            other = np.maximum(0, param.margin - np.sqrt(self._square)) ** 2
        losses = np.where(self._similar(bottom), self._square, other)
        top[0].data[...] = losses.sum(dtype=np.float64) / (2 * max(1, self.fold[0]))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[2]:
            raise self.run_error("ContrastiveLoss has no gradient for its third bottom")
        param = self.param.contrastive_loss_param
        if param.legacy_version:
            other = np.where(self._square < param.margin, -1.0, 0.0)
        else:
            distance = np.sqrt(self._square)
            other = -np.maximum(0, param.margin - distance) / (distance + _TINY)
        slope = np.where(self._similar(bottom), 1.0, other) * (float(top[0].diff) / max(1, self.fold[0]))
        for blob, wanted, sign in zip(bottom, propagate_down, (1, -1)):
            if wanted:
                np.multiply(self._apart, (sign * slope).astype(self.dtype)[:, None], out=blob.diff.reshape(self.fold))

    def _similar(self, bottom: Blobs) -> np.ndarray:
        """(N) bool: whether the pair is similar; a fraction below 1 counts as 0."""
        similar: np.ndarray = np.trunc(bottom[2].data.reshape(-1)) != 0
        return similar
