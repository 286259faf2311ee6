"""SigmoidCrossEntropyLoss: the logistic loss of independent binary targets.

    loss = sum of max(x, 0) - x t + log(1 + exp(-|x|)), over the normaliser (N unless loss_param says otherwise)
    dx = (sigmoid(x) - t) loss_weight / normaliser

With loss_param.focal_gamma g (Lin et al. 2017, eq. 5) the loss of each value is multiplied by (1 - q)^g, where
q = sigmoid(x) for target 1 and 1 - sigmoid(x) for target 0, and with focal_alpha a by a for target 1 and 1 - a for target 0.
Targets between 0 and 1 mix both: q = p t + (1 - p)(1 - t), a t + (1 - a)(1 - t).

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
from sslnet.layers.loss import Loss, normalizer


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


@kernel
def _focal(n0, n1, thread, x, t, has_ignore, ignore, gamma, alpha, sums):
    """The focal loss of each image in [n0, n1).  alpha: the weight of target 1; below 0: every target has weight 1"""
    for n in range(n0, n1):
        total = 0.0
        for i in range(x.shape[1]):
            v, target = np.float64(x[n, i]), np.float64(t[n, i])
            if has_ignore and t[n, i] == ignore:
                continue
            p = 1 / (1 + np.exp(-v)) if v >= 0 else np.exp(v) / (1 + np.exp(v))
            rest = max(p + target - 2 * p * target, 0.0)  # 1 - q
            weight = 1.0 if alpha < 0 else alpha * target + (1 - alpha) * (1 - target)
            total += weight * rest**gamma * (max(v, 0.0) - v * target + np.log1p(np.exp(-abs(v))))
        sums[n] = total


@kernel
def _focal_gradient(i0, i1, thread, x, t, dx, has_ignore, ignore, gamma, alpha, factor):
    """dx = factor * the derivative of the focal loss: of rest^gamma * entropy by x."""
    for i in range(i0, i1):
        v, target = np.float64(x[i]), np.float64(t[i])
        if has_ignore and t[i] == ignore:
            dx[i] = 0
            continue
        p = 1 / (1 + np.exp(-v)) if v >= 0 else np.exp(v) / (1 + np.exp(v))
        rest = max(p + target - 2 * p * target, 0.0)
        weight = 1.0 if alpha < 0 else alpha * target + (1 - alpha) * (1 - target)
        entropy = max(v, 0.0) - v * target + np.log1p(np.exp(-abs(v)))
        slope = gamma * rest ** (gamma - 1) * (1 - 2 * target) * p * (1 - p) if rest > 0 else 0.0
        dx[i] = factor * weight * (rest**gamma * (p - target) + slope * entropy)


@final
class SigmoidCrossEntropyLoss(Loss):
    TYPE: ClassVar[str] = "SigmoidCrossEntropyLoss"
    OUTPUT: ClassVar[tuple[str, str] | None] = ("Sigmoid", "prob")
    OPTIONS: ClassVar[tuple[str, ...]] = ("focal_gamma", "focal_alpha")

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.mode = self.normalization(default=pb.LossParameter.BATCH_SIZE)
        self.gamma, loss = self.focal_gamma(), self.param.loss_param
        self.alpha = float(loss.focal_alpha) if loss.HasField("focal_alpha") else -1.0
        if loss.HasField("focal_alpha") and not (self.gamma and 0 <= self.alpha <= 1):
            message = "focal_alpha needs a focal_gamma above 0" if not self.gamma else "focal_alpha must be from 0 to 1"
            raise self.error(message, "loss_param", "focal_alpha", value=True)

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
        if self.gamma:
            spread(_focal, outer, 16 * inner, x, t, *self.ignore_label, self.gamma, self.alpha, self._sums)
        valid, fixed = int(self._counts.sum()), self.fixed_normalizer
        self.normalizer = normalizer(self.mode, outer=outer, inner=inner, valid=valid, fixed=fixed)
        top[0].data[...] = self._sums.sum() / self.normalizer

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if len(propagate_down) > 1 and propagate_down[1]:
            raise self.run_error("SigmoidCrossEntropyLoss has no gradient for its targets")
        if not propagate_down[0]:
            return
        x, t, dx = (a.reshape(-1) for a in (bottom[0].data, bottom[1].data, bottom[0].diff))
        factor = self.dtype.type(float(top[0].diff) / self.normalizer)
        if self.gamma:
            focal = (*self.ignore_label, self.gamma, self.alpha, float(factor))
            spread(_focal_gradient, x.size, 16, x, t, dx, *focal)
        else:
            spread(_gradient, x.size, 1, x, t, dx, *self.ignore_label, factor)
