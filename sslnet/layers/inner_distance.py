"""InnerDistance: the distance of each feature vector x_i to each row w_k of a matrix.

    L2: y_ik = |x_i - w_k|^2        L1: y_ik = sum of |x_i - w_k|

With ``normalize`` the rows of the layer's own matrix are divided by their norm before each pass (with 1e-6 under the root).
With ``update_center_only`` only the row of each label has a gradient; the last bottom holds the labels.

bottoms  x (N, ...), from ``axis`` on one vector; optionally the matrix (K, ...), instead of the blob; the labels (N)
top      (N, K)
blob     the matrix (num_output, values), if no bottom gives it

Ref: happynear's fork of Caffe
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.center_loss import labels_of


@final
class InnerDistance(Layer):
    TYPE: ClassVar[str] = "InnerDistance"
    KIND: ClassVar[str] = "connected"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 3)

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.inner_distance_param.num_output} rows"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.inner_distance_param
        if param.distance_type not in ("L1", "L2"):
            message = f'distance_type is L1 or L2, not "{param.distance_type}"'
            raise self.error(message, "inner_distance_param", "distance_type", value=True)
        if param.transpose:
            raise self.error("transpose is not supported", "inner_distance_param", "transpose")
        self.labelled = bool(param.update_center_only)
        if len(bottom) - self.labelled not in (1, 2):
            raise self.error("it takes x and at most a matrix; with update_center_only also the labels")
        self.given = len(bottom) - self.labelled == 2
        self.axis = axis_of(self, bottom[0], param.axis, "inner_distance_param", "axis")
        if not self.given:
            if param.num_output < 1:
                raise self.error("num_output must be at least 1", "inner_distance_param", "num_output")
            shape = (param.num_output, bottom[0].count_of(self.axis))
            self.new_param(shape, "inner_distance_param", "weight_filler")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        matrix = bottom[1] if self.given else self.blobs[0]
        values = x.count_of(self.axis)
        if matrix.num_axes < 1 or matrix.count_of(1) != values:
            raise self.shape_error(f"the rows must have the {values} values of x: {matrix.shape} and {x.shape}")
        self.fold = (x.count_of(0, self.axis), values)
        self.rows = matrix.shape[0]
        if self.labelled and bottom[-1].count != self.fold[0]:
            raise self.shape_error(f"there must be one label a vector: {bottom[-1].shape} and {x.shape}")
        top[0].reshape(*x.shape[: self.axis], self.rows)

    def _matrix(self, bottom: Blobs) -> np.ndarray:
        blob = bottom[1] if self.given else self.blobs[0]
        return blob.data.reshape(self.rows, self.fold[1])

    def allow_force_backward(self, index: int) -> bool:
        return index < 1 + self.given

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, matrix, y = bottom[0].data.reshape(self.fold), self._matrix(bottom), top[0].data.reshape(-1, self.rows)
        if self.param.inner_distance_param.normalize and not self.given:
            matrix /= np.sqrt(np.einsum("kv,kv->k", matrix, matrix) + 1e-6).astype(self.dtype)[:, None]
        for k, row in enumerate(matrix):
            apart = x - row
            y[:, k] = np.abs(apart).sum(axis=1) if self._l1 else np.einsum("nv,nv->n", apart, apart)

    @property
    def _l1(self) -> bool:
        return bool(self.param.inner_distance_param.distance_type == "L1")

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return True

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down[1 + self.given :]):
            raise self.run_error("InnerDistance has no gradient for the labels")
        x, matrix, dy = bottom[0].data.reshape(self.fold), self._matrix(bottom), top[0].diff.reshape(-1, self.rows)
        labels = labels_of(self, bottom[-1].data, self.rows) if self.labelled else None
        dx = bottom[0].diff.reshape(self.fold) if propagate_down[0] else None
        if dx is not None:
            dx[...] = 0
        if self.given:
            dmatrix = bottom[1].diff.reshape(matrix.shape) if propagate_down[1] else None
            if dmatrix is not None:
                dmatrix[...] = 0
        else:
            dmatrix = self.blobs[0].diff if self.param_propagate_down[0] else None
        for k, row in enumerate(matrix):
            slope = np.sign(x - row) if self._l1 else 2 * (x - row)
            slope *= dy[:, k : k + 1]
            if dx is not None:
                dx += slope
            if dmatrix is not None:
                dmatrix[k] -= slope.sum(axis=0) if labels is None else slope[labels == k].sum(axis=0)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 3 * self.fold[0] * self.rows * self.fold[1]
