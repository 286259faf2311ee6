"""HingeLoss: the margin loss of one class against all others.

    m_c = max(0, 1 - x_c) for the true class c, max(0, 1 + x_j) for the others
    L1: loss = sum m / N, dx_c = -w / N where m_c > 0, dx_j = +w / N where m_j > 0       L2: sum m^2 / N, 2 m times that

x       (N, classes ...); all values of an image count as classes
labels  (N), whole numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss, bad_label, class_of


@kernel
def _forward(n0, n1, thread, x, labels, squared, sums):
    """sums[n] = the sum of image n's margins, or of their squares; -1 for a label out of range."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for n in range(n0, n1):
        row, total = x[n], 0.0
        true = class_of(labels[n], row.size, False, 0)
        for c in range(row.size):
            m = max(zero, one - row[c] if c == true else one + row[c])
            total += m * m if squared else m
        sums[n] = total if true >= 0 else -1.0


@kernel
def _gradient(n0, n1, thread, x, labels, dx, squared, factor):
    zero, one, two = x.dtype.type(0), x.dtype.type(1), x.dtype.type(2)
    for n in range(n0, n1):
        row, out = x[n], dx[n]
        true = class_of(labels[n], row.size, False, 0)
        for c in range(row.size):
            sign = -one if c == true else one
            m = max(zero, one + sign * row[c])
            out[c] = sign * factor * (two * m if squared else (one if m > zero else zero))


@final
class HingeLoss(Loss):
    TYPE: ClassVar[str] = "HingeLoss"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.squared: bool = self.param.hinge_loss_param.norm == pb.HingeLossParameter.L2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.fold = self.scores_and_labels(bottom)
        self._sums = np.zeros(bottom[0].num)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        labels = bottom[1].data.reshape(-1)
        spread(_forward, *self.fold, bottom[0].data.reshape(self.fold), labels, self.squared, self._sums)
        if self._sums.min(initial=0) < 0:
            raise bad_label(self, labels[:, None], self.fold[1], (False, 0))
        top[0].data[...] = self._sums.sum() / max(1, self.fold[0])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        factor = self.dtype.type(float(top[0].diff) / max(1, self.fold[0]))
        x, dx = bottom[0].data.reshape(self.fold), bottom[0].diff.reshape(self.fold)
        spread(_gradient, *self.fold, x, bottom[1].data.reshape(-1), dx, self.squared, factor)
