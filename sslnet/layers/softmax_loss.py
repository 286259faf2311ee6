"""SoftmaxWithLoss: the mean of -log softmax(x)[label], with labels that may be ignored.

loss = -sum over images and positions of log(max(p[label], FLT_MIN)) / normaliser, along ``softmax_param.axis``;
dx = (p - 1 at the label) * weight / normaliser, 0 where the label is ignored. The normaliser is the number of labels
that are not ignored (VALID), of all labels (FULL), of images (BATCH_SIZE), 1 (NONE), or pre_fixed_normalizer (PRE_FIXED);
it is at least 1. Options of ``loss_param``, none of which changes the normaliser:

    weight_by_label_freqs  (SegNet) each class has a weight w, class_weighting: the loss of a label is -w[label] log p[label]
    label_smoothing s      targets t = (1 - s) at the label + s / classes everywhere: the loss is -sum of w[c] t[c] log p[c]
    focal_gamma g          the loss of a label is multiplied by (1 - p[label])^g, which easy images hardly change

bottom  x (outer, classes, inner), labels (outer, inner) as floats
top     the loss; optionally the probabilities, in the shape of x; optionally (R-FCN) the loss of each label, in the shape
        of the labels, which is not divided and has no gradient

Ref: Szegedy et al. 2016, "Rethinking the Inception Architecture" (label smoothing); Lin et al. 2017, "Focal Loss for Dense
Object Detection"
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.pointwise.softmax import softmax
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.simd.math import log
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.loss import OUT_OF_RANGE, Loss, bad_label, class_of, normalizer

FLT_MIN = float(np.finfo(np.float32).tiny)


@kernel
def _forward(i0, i1, thread, p, labels, has_ignore, ignore, losses, valid):
    """Computes the loss and the number of counted labels of each image; a number of -1 when a label is out of range."""
    classes, tiny, one = p.shape[1], p.dtype.type(FLT_MIN), p.dtype.type(1)
    chosen = np.empty(p.shape[2], p.dtype)
    for i in range(i0, i1):
        loss, count = 0.0, 0
        for j in range(chosen.size):
            k = class_of(labels[i, j], classes, has_ignore, ignore)
            if k == OUT_OF_RANGE:
                count = -1
                break
            chosen[j] = p[i, k, j] if k >= 0 else one
            count += 1 if k >= 0 else 0
        if count > 0:
            for j in range(chosen.size):
                loss -= log(chosen[j] if chosen[j] >= tiny or chosen[j] != chosen[j] else tiny)
        losses[i], valid[i] = loss, count


@kernel
def _label_losses(i0, i1, thread, p, labels, has_ignore, ignore, weights, smoothing, gamma, losses):
    """losses = the loss of each label, which is in range; 0 where it is ignored."""
    classes, tiny = p.shape[1], FLT_MIN
    for i in range(i0, i1):
        for j in range(p.shape[2]):
            k = class_of(labels[i, j], classes, has_ignore, ignore)
            if k < 0:
                losses[i, j] = 0
                continue
            value = np.float64(p[i, k, j])
            loss = -(1 - smoothing) * weights[k] * np.log(value if value >= tiny or value != value else tiny)
            if gamma > 0:
                loss *= (1 - value) ** gamma
            if smoothing > 0:
                for c in range(classes):
                    value = np.float64(p[i, c, j])
                    loss -= (
                        smoothing / classes * weights[c] * np.log(value if value >= tiny or value != value else tiny)
                    )
            losses[i, j] = loss


@kernel
def _label_gradients(i0, i1, thread, p, labels, has_ignore, ignore, weights, smoothing, gamma, scale, dx):
    """dx = scale * the gradient of each label's loss, along the classes: p * sum(t) - t with the targets t; for the focal
    loss times its factor (1 - q)^gamma - gamma (1 - q)^(gamma - 1) q log q, with q = p[label]."""
    classes, tiny = p.shape[1], FLT_MIN
    even = 0.0
    for c in range(classes):
        even += smoothing / classes * weights[c]
    for i in range(i0, i1):
        for j in range(p.shape[2]):
            k = class_of(labels[i, j], classes, has_ignore, ignore)
            if k < 0:
                for c in range(classes):
                    dx[i, c, j] = 0
                continue
            factor = scale
            if gamma > 0:
                q = np.float64(p[i, k, j])
                rest = max(1 - q, 0.0) if q == q else q
                slope = gamma * rest ** (gamma - 1) if rest > 0 or gamma >= 1 else 0.0
                factor *= rest**gamma - slope * q * np.log(max(q, tiny) if q == q else q)
            whole = (1 - smoothing) * weights[k] + even
            for c in range(classes):
                target = smoothing / classes * weights[c]
                if c == k:
                    target += (1 - smoothing) * weights[k]
                dx[i, c, j] = factor * (whole * p[i, c, j] - target)


@kernel
def _backward(i0, i1, thread, p, labels, has_ignore, ignore, scale, dx):
    classes, inner = p.shape[1], p.shape[2]
    for i in range(i0, i1):
        value, below = p[i].reshape(-1), dx[i].reshape(-1)
        for c in range(value.size):
            below[c] = value[c] * scale
        for j in range(inner):
            k = class_of(labels[i, j], classes, has_ignore, ignore)
            if k >= 0:
                dx[i, k, j] -= scale
            else:
                for c in range(classes):
                    dx[i, c, j] = 0


class SoftmaxLoss(Loss, ABC):
    """SoftmaxWithLoss, under the names that it has."""

    OUTPUT: ClassVar[tuple[str, str] | None] = ("Softmax", "prob")
    TOPS: ClassVar[tuple[int, int | None]] = (1, 3)

    OPTIONS: ClassVar[tuple[str, ...]] = ("label_smoothing", "focal_gamma")

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.probabilities = Blob(name=f"{self.name} probabilities", dtype=self.dtype)
        self.mode = self.normalization()
        loss = self.param.loss_param
        self.weights = np.array(loss.class_weighting, np.float64) if loss.weight_by_label_freqs else None
        self.smoothing, self.gamma = loss.label_smoothing, self.focal_gamma()
        if not 0 <= self.smoothing < 1:
            message = f"label_smoothing must be at least 0 and below 1, not {self.smoothing:g}"
            raise self.error(message, "loss_param", "label_smoothing", value=True)
        if self.smoothing and self.gamma:
            raise self.error(
                "label_smoothing and focal_gamma exclude each other", "loss_param", "focal_gamma", hint="choose one"
            )
        self.plain_loss = self.weights is None and not self.smoothing and not self.gamma
        """Whether the loss is -log p[label] itself."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, labels = bottom
        axis = axis_of(self, x, self.param.softmax_param.axis, "softmax_param", "axis")
        self.fold = (x.count_of(0, axis), x.shape[axis], x.count_of(axis + 1))
        self.check_classes(bottom, self.fold[1])
        if labels.count != self.fold[0] * self.fold[2]:
            raise self.shape_error(
                f"there must be a label for each prediction: {self.fold[0] * self.fold[2]} predictions of shape {x.shape} "
                f"along axis {axis}, {labels.count} labels of shape {labels.shape}"
            )
        if self.weights is not None and len(self.weights) != self.fold[1]:
            raise self.error(
                f"class_weighting is given {len(self.weights)} times for {self.fold[1]} classes",
                "loss_param",
                "class_weighting",
                hint="weight_by_label_freqs needs one weight a class",
            )
        self.losses = np.zeros(self.fold[0])
        self.valid = np.zeros(self.fold[0], np.int64)
        self.probabilities.reshape_like(x)
        top[0].reshape(())
        if len(top) > 1:
            top[1].reshape_like(x)
            top[1].share_data(self.probabilities)
        if len(top) > 2:
            top[2].reshape_like(labels)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        p, labels = self._views(bottom)
        softmax(bottom[0].data.reshape(self.fold), p)
        spread(_forward, len(p), self.fold[2], p, labels, *self.ignore_label, self.losses, self.valid)
        if self.valid.min(initial=0) < 0:
            raise bad_label(self, labels, self.fold[1], self.ignore_label)
        if not self.plain_loss or len(top) > 2:
            each = np.empty(labels.shape)
            work = self.fold[2] * (self.fold[1] if self.smoothing else 1)
            spread(_label_losses, len(p), work, p, labels, *self.ignore_label, *self._options(), each)
            if not self.plain_loss:
                self.losses = each.sum(axis=1)
            if len(top) > 2:
                top[2].data[...] = each.reshape(top[2].shape)
        top[0].data[...] = self.losses.sum() / self._normalizer()

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index > 0

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        p, labels = self._views(bottom)
        scale = self.dtype.type(float(top[0].diff) / self._normalizer())
        dx = bottom[0].diff.reshape(self.fold)
        work = self.fold[1] * self.fold[2]
        if self.plain_loss:
            spread(_backward, len(p), work, p, labels, *self.ignore_label, scale, dx)
        else:
            spread(_label_gradients, len(p), work, p, labels, *self.ignore_label, *self._options(), float(scale), dx)

    def _options(self) -> tuple[np.ndarray, float, float]:
        """Weights of the classes, label smoothing and exponent of the focal loss."""
        weights = np.ones(self.fold[1]) if self.weights is None else self.weights
        return weights, float(self.smoothing), float(self.gamma)

    def _normalizer(self) -> float:
        outer, inner, valid = self.fold[0], self.fold[2], int(self.valid.sum())
        return normalizer(self.mode, outer=outer, inner=inner, valid=valid, fixed=self.fixed_normalizer)

    def _views(self, bottom: Blobs) -> tuple[np.ndarray, np.ndarray]:
        """Views of the probabilities (outer, classes, inner) and labels (outer, inner)."""
        return self.probabilities.data.reshape(self.fold), bottom[1].data.reshape(self.fold[0], self.fold[2])


@final
class SoftmaxWithLoss(SoftmaxLoss):
    TYPE: ClassVar[str] = "SoftmaxWithLoss"


@final
class SoftmaxWithLossOHEM(SoftmaxLoss):
    TYPE: ClassVar[str] = "SoftmaxWithLossOHEM"
