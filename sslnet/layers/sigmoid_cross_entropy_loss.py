"""SigmoidCrossEntropyLoss: the logistic loss of independent binary targets.

    loss = sum of max(x, 0) - x t + log(1 + exp(-|x|)), over the normaliser (N unless loss_param says otherwise)
    dx = (sigmoid(x) - t) loss_weight / normaliser

x, t   bottoms of the same number of values, t from 0 to 1; values with t equal to ``ignore_label`` do not count
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.simd.math import sigmoid, softplus
from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss


@kernel
def _forward(n0, n1, thread, x, t, has_ignore, ignore, sums, counts):
    """Computes the loss and the number of counted predictions of each image in [n0, n1)."""
    zero = x.dtype.type(0)
    for n in range(n0, n1):
        xn, tn = x[n], t[n]
        total, count = 0.0, 0
        for i in range(xn.size):
            counted = not has_ignore or tn[i] != ignore
            v = xn[i]
            total += softplus(v) - v * tn[i] if counted else zero
            count += 1 if counted else 0
        sums[n], counts[n] = total, count


@kernel
def _gradient(i0, i1, thread, x, t, dx, has_ignore, ignore, factor):
    x, t, dx = x[i0:i1], t[i0:i1], dx[i0:i1]
    zero = x.dtype.type(0)
    for i in range(x.size):
        counted = not has_ignore or t[i] != ignore
        dx[i] = factor * (sigmoid(x[i]) - t[i]) if counted else zero


@final
class SigmoidCrossEntropyLoss(Loss):
    TYPE: ClassVar[str] = "SigmoidCrossEntropyLoss"
    OUTPUT: ClassVar[tuple[str, str] | None] = ("Sigmoid", "prob")

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.mode = self.normalization(default=pb.LossParameter.BATCH_SIZE)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.check_same_batch(bottom)
        if bottom[0].count != bottom[1].count:
            raise self.shape_error(
                f"predictions and targets must have the same number of values: {bottom[0].shape} and {bottom[1].shape}"
            )
        top[0].reshape()
        outer = bottom[0].num
        self.fold = (outer, bottom[0].count // max(1, outer))
        self._sums, self._counts = np.zeros(outer), np.zeros(outer, np.int64)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, t = (blob.data.reshape(self.fold) for blob in bottom)
        spread(_forward, self.fold[0], 8 * self.fold[1], x, t, *self.ignore_label, self._sums, self._counts)
        outer, inner = self.fold
        self.normalizer = self.divisor(self.mode, outer=outer, inner=inner, valid=int(self._counts.sum()))
        top[0].data[...] = self._sums.sum() / self.normalizer

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if len(propagate_down) > 1 and propagate_down[1]:
            raise self.run_error("SigmoidCrossEntropyLoss has no gradient for its targets")
        if not propagate_down[0]:
            return
        x, t, dx = (a.reshape(-1) for a in (bottom[0].data, bottom[1].data, bottom[0].diff))
        factor = self.dtype.type(float(top[0].diff) / self.normalizer)
        spread(_gradient, x.size, 1, x, t, dx, *self.ignore_label, factor)
