"""SoftmaxWithLoss: the mean of -log softmax(x)[label], with labels that may be ignored.

loss = -sum over images and positions of log(max(p[label], FLT_MIN)) / normaliser, along ``softmax_param.axis``;
dx = (p - 1 at the label) * weight / normaliser, 0 where the label is ignored. The normaliser is the number of labels
that are not ignored (VALID), of all labels (FULL), of images (BATCH_SIZE), 1 (NONE), or pre_fixed_normalizer (PRE_FIXED);
it is at least 1. With weight_by_label_freqs (SegNet) the loss and the gradient of each label are multiplied by the weight of
its class, class_weighting; the normaliser is not.

bottom  x (outer, classes, inner), labels (outer, inner) as floats
top     the loss; optionally the probabilities, in the shape of x; optionally (R-FCN) the loss of each label, in the shape
        of the labels, which is not divided and has no gradient
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
from sslnet.layers.loss import OUT_OF_RANGE, Loss, bad_label, class_of

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
def _weighted_losses(i0, i1, thread, p, labels, has_ignore, ignore, weights, losses):
    """losses = sum of weight[label] * -log p[label] of each image, whose labels are in range."""
    classes, tiny = p.shape[1], FLT_MIN
    for i in range(i0, i1):
        loss = 0.0
        for j in range(p.shape[2]):
            k = class_of(labels[i, j], classes, has_ignore, ignore)
            if k >= 0:
                value = p[i, k, j]
                loss -= weights[k] * np.log(value if value >= tiny or value != value else tiny)
        losses[i] = loss


@kernel
def _weigh(i0, i1, thread, labels, has_ignore, ignore, weights, dx):
    """dx *= weight[label], along the classes."""
    classes = dx.shape[1]
    for i in range(i0, i1):
        for j in range(dx.shape[2]):
            k = class_of(labels[i, j], classes, has_ignore, ignore)
            if k >= 0:
                for c in range(classes):
                    dx[i, c, j] *= weights[k]


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

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.probabilities = Blob(name=f"{self.name} probabilities", dtype=self.dtype)
        self.mode = self.normalization()
        self.normalizer = 1.0
        loss = self.param.loss_param
        self.weights = np.array(loss.class_weighting, np.float64) if loss.weight_by_label_freqs else None

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
        if self.weights is not None:
            spread(_weighted_losses, len(p), self.fold[2], p, labels, *self.ignore_label, self.weights, self.losses)
        outer, inner = self.fold[0], self.fold[2]
        self.normalizer = self.divisor(self.mode, outer=outer, inner=inner, valid=int(self.valid.sum()))
        top[0].data[...] = self.losses.sum() / self.normalizer
        if len(top) > 2:
            top[2].data[...] = self._single_losses(p, labels).reshape(top[2].shape)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index > 0

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        p, labels = self._views(bottom)
        scale = self.dtype.type(float(top[0].diff) / self.normalizer)
        dx = bottom[0].diff.reshape(self.fold)
        work = self.fold[1] * self.fold[2]
        spread(_backward, len(p), work, p, labels, *self.ignore_label, scale, dx)
        if self.weights is not None:
            spread(_weigh, len(p), work, labels, *self.ignore_label, self.weights.astype(self.dtype), dx)

    def _single_losses(self, p: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(outer, inner): the loss of each label, 0 where it is ignored; the labels are in range."""
        has_ignore, ignore = self.ignore_label
        counted = labels != ignore if has_ignore else np.ones_like(labels, np.bool_)
        index = np.where(counted, labels, 0).astype(np.int64)
        chosen = np.take_along_axis(p, index[:, None], axis=1)[:, 0]
        losses = -np.log(np.maximum(chosen, FLT_MIN))
        if self.weights is not None:
            losses = losses * self.weights[index]
        return np.asarray(np.where(counted, losses, 0))

    def _views(self, bottom: Blobs) -> tuple[np.ndarray, np.ndarray]:
        """Views of the probabilities (outer, classes, inner) and labels (outer, inner)."""
        return self.probabilities.data.reshape(self.fold), bottom[1].data.reshape(self.fold[0], self.fold[2])


@final
class SoftmaxWithLoss(SoftmaxLoss):
    TYPE: ClassVar[str] = "SoftmaxWithLoss"


@final
class SoftmaxWithLossOHEM(SoftmaxLoss):
    TYPE: ClassVar[str] = "SoftmaxWithLossOHEM"
