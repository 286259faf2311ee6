"""InfogainLoss: the logistic loss after a softmax, with all classes weighted by the label's row of a matrix H.

    loss = -sum over predictions of sum_j H[c, j] log(max(p_j, 1e-20)) / normaliser, p the softmax of x, c the label
    dx_j = w / normaliser (p_j sum_k H[c, k] - H[c, j])

x        (outer, classes, inner) around ``axis``; one label per prediction
H        (classes, classes), from the BlobProto file ``source`` or the third bottom, without gradient
top      the loss; optionally the probabilities
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
from google.protobuf.message import DecodeError

from sslnet import files
from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import DataError
from sslnet.kernels.pointwise.softmax import softmax
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.loss import IGNORED, OUT_OF_RANGE, Loss, bad_label, class_of
from sslnet.layers.multinomial_logistic_loss import LEAST_PROBABILITY


@kernel
def _forward(n0, n1, thread, p, labels, has_ignore, ignore, matrix, sums, counts):
    """Computes the loss and the number of counted predictions of each image; a count of -1 for a label out of range."""
    least = p.dtype.type(LEAST_PROBABILITY)
    for n in range(n0, n1):
        total, count = 0.0, 0
        for i in range(p.shape[2]):
            true = class_of(labels[n, i], p.shape[1], has_ignore, ignore)
            if true == OUT_OF_RANGE:
                count = -1
                break
            if true == IGNORED:
                continue
            count += 1
            for c in range(p.shape[1]):
                total -= matrix[true, c] * math.log(max(p[n, c, i], least))
        sums[n], counts[n] = total, count


@kernel
def _gradient(n0, n1, thread, p, labels, has_ignore, ignore, matrix, row_sums, factor, dx):
    zero = p.dtype.type(0)
    for n in range(n0, n1):
        for i in range(p.shape[2]):
            true = class_of(labels[n, i], p.shape[1], has_ignore, ignore)
            for c in range(p.shape[1]):
                dx[n, c, i] = factor * (p[n, c, i] * row_sums[true] - matrix[true, c]) if true >= 0 else zero


@final
class InfogainLoss(Loss):
    TYPE: ClassVar[str] = "InfogainLoss"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 3)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.mode = self.normalization()
        self._probabilities = Blob(name=f"{self.name} probabilities", dtype=self.dtype)
        self._matrix = self._read_matrix() if len(bottom) < 3 else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, labels = bottom[:2]
        axis = axis_of(self, x, self.param.infogain_loss_param.axis, "infogain_loss_param", "axis")
        self.fold = (x.count_of(0, axis), x.shape[axis], x.count_of(axis + 1))
        self.check_classes(bottom, self.fold[1])
        if labels.count != self.fold[0] * self.fold[2]:
            raise self.shape_error(
                f"there must be a label for each of the {self.fold[0] * self.fold[2]} predictions along axis {axis} of "
                f"{x.shape}: labels {labels.shape}"
            )
        size = self._matrix.size if self._matrix is not None else bottom[2].count
        if size != self.fold[1] ** 2:
            raise self.shape_error(
                f"the matrix must be classes x classes, {self.fold[1]} x {self.fold[1]}, but has {size} values"
            )
        self._probabilities.reshape_like(x)
        self._sums, self._counts = np.zeros(self.fold[0]), np.zeros(self.fold[0], np.int64)
        top[0].reshape(())
        if len(top) > 1:
            top[1].reshape_like(x)
            top[1].share_data(self._probabilities)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        p, labels, matrix = self._views(bottom)
        softmax(bottom[0].data.reshape(self.fold), p)
        cost = 8 * self.fold[1] * self.fold[2]
        spread(_forward, self.fold[0], cost, p, labels, *self.ignore_label, matrix, self._sums, self._counts)
        if self._counts.min(initial=0) < 0:
            raise bad_label(self, labels, self.fold[1], self.ignore_label)
        outer, inner = self.fold[0], self.fold[2]
        self.normalizer = self.divisor(self.mode, outer=outer, inner=inner, valid=int(self._counts.sum()))
        top[0].data[...] = self._sums.sum() / self.normalizer

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index > 0

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if len(bottom) > 2 and propagate_down[2]:
            raise self.run_error("InfogainLoss has no gradient for its matrix")
        if not propagate_down[0]:
            return
        p, labels, matrix = self._views(bottom)
        factor = self.dtype.type(float(top[0].diff) / self.normalizer)
        dx, cost = bottom[0].diff.reshape(self.fold), self.fold[1] * self.fold[2]
        spread(_gradient, self.fold[0], cost, p, labels, *self.ignore_label, matrix, matrix.sum(axis=1), factor, dx)

    def _views(self, bottom: Blobs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Views of the probabilities (outer, classes, inner), the labels (outer, inner) and H (classes, classes)."""
        outer, classes, inner = self.fold
        matrix = self._matrix if self._matrix is not None else bottom[2].data
        return (
            self._probabilities.data.reshape(self.fold),
            bottom[1].data.reshape(outer, inner),
            matrix.reshape(classes, classes),
        )

    def _read_matrix(self) -> np.ndarray:
        source = self.param.infogain_loss_param.source
        span = self.definition.span("infogain_loss_param", "source", value=True)
        if not source:
            raise self.error("InfogainLoss needs its matrix: as source, or as a third bottom", "infogain_loss_param")
        path = files.resolve(source, self.context.beside, error=DataError, span=span, layer=self.name)
        try:
            blob = pb.BlobProto.FromString(files.read_bytes(path, limit=files.MOST_MESSAGE))
        except DataError as error:
            raise DataError(error.message, path=str(path), layer=self.name) from error
        except DecodeError as error:
            raise DataError("holds no BlobProto", path=str(path), layer=self.name) from error
        return np.array(blob.double_data or blob.data, self.dtype)
