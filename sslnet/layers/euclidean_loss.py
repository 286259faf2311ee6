"""EuclideanLoss: sum of (a - b)^2 / (2 N), for bottoms a and b of N images.

da = (a - b) * weight / N, db = -da; both bottoms have a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss


@kernel
def _forward(i0, i1, thread, a, b, sums):
    for i in range(i0, i1):
        left, right = a[i], b[i]
        total = 0.0
        for q in range(left.size):
            d = left[q] - right[q]
            total += d * d
        sums[i] = total


@kernel
def _backward(i0, i1, thread, a, b, scale, d):
    a, b, d = a[i0:i1], b[i0:i1], d[i0:i1]
    for q in range(a.size):
        d[q] = (a[q] - b[q]) * scale


@final
class EuclideanLoss(Loss):
    TYPE: ClassVar[str] = "EuclideanLoss"

    def allow_force_backward(self, index: int) -> bool:
        return True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.check_same_batch(bottom)
        if bottom[0].count_of(1) != bottom[1].count_of(1):
            raise self.shape_error(
                f"both bottoms must have the same number of values an image: {bottom[0].shape} and {bottom[1].shape}"
            )
        self.sums = np.zeros(bottom[0].num)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        a, b = (blob.data.reshape(len(self.sums), blob.count_of(1)) for blob in bottom)
        spread(_forward, len(a), a.shape[1], a, b, self.sums)
        top[0].data[...] = self.sums.sum() / (2 * max(1, len(self.sums)))

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        a, b = (blob.data.reshape(-1) for blob in bottom)
        for index, sign in enumerate((1, -1)):
            if propagate_down[index]:
                scale = self.dtype.type(sign * float(top[0].diff) / max(1, len(self.sums)))
                spread(_backward, a.size, 1, a, b, scale, bottom[index].diff.reshape(-1))
