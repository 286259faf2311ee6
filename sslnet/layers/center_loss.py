"""CenterLoss: half the mean squared distance of each feature vector to the centre of its class; the centres follow.

    loss = sum of |x_i - c_{y_i}|^2 / 2 N        dx_i = (x_i - c_{y_i}) * weight / N
    dc_k = sum over the images of class k of (c_k - x_i) / (1 + number of them)

The diff of the centres is not the gradient of the loss, and has no loss weight: it moves each centre towards the mean of its
class, by lr_mult times the learning rate.

bottoms  features (N, ...), from ``axis`` on one vector; labels (N)
blob     centres (num_output, values)

Ref: Wen et al. 2016, "A discriminative feature learning approach for deep face recognition"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss, bad_label


def labels_of(layer: Any, labels: np.ndarray, classes: int) -> np.ndarray:
    """(N) int64 of the labels; raises BatchError for one that names no class."""
    values = labels.reshape(-1)
    if not ((values >= 0) & (values < classes)).all():
        raise bad_label(layer, values[:, None], classes, (False, 0))
    found: np.ndarray = values.astype(np.int64)
    return found


@final
class CenterLoss(Loss):
    TYPE: ClassVar[str] = "CenterLoss"

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.center_loss_param.num_output} centres"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.center_loss_param
        if param.num_output < 1:
            raise self.error("num_output must be at least 1", "center_loss_param", "num_output")
        self.axis = axis_of(self, bottom[0], param.axis, "center_loss_param", "axis")
        self.new_param((param.num_output, bottom[0].count_of(self.axis)), "center_loss_param", "center_filler")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        _classes, values = self.blobs[0].shape
        if bottom[0].count_of(self.axis) != values:
            raise self.shape_error(f"the centres have {values} values, the features have shape {bottom[0].shape}")
        count = bottom[0].count_of(0, self.axis)
        if bottom[1].count != count:
            raise self.shape_error(f"there must be one label a vector: {bottom[0].shape} and {bottom[1].shape}")
        self.fold = (count, values)
        self._apart = np.zeros(self.fold, self.dtype)
        self._labels = np.zeros(count, np.int64)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self._labels[...] = labels_of(self, bottom[1].data, len(self.blobs[0].data))
        np.subtract(bottom[0].data.reshape(self.fold), self.blobs[0].data[self._labels], out=self._apart)
        total = np.einsum("nk,nk->", self._apart, self._apart, dtype=np.float64)
        top[0].data[...] = total / (2 * max(1, self.fold[0]))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[1]:
            raise self.run_error("CenterLoss has no gradient for the labels")
        if self.param_propagate_down[0]:
            shares = 1 / (1 + np.bincount(self._labels, minlength=len(self.blobs[0].data)))
            moves = self._apart * shares[self._labels, None].astype(self.dtype)
            np.subtract.at(self.blobs[0].diff, self._labels, moves)
        if propagate_down[0]:
            scale = self.dtype.type(float(top[0].diff) / max(1, self.fold[0]))
            np.multiply(self._apart, scale, out=bottom[0].diff.reshape(self.fold))
