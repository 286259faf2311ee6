"""MarginInnerProduct: products with rows of norm 1, with an angular margin for the row of the label (SphereFace).

The rows of the matrix are divided by their norm before each pass. With theta the angle between x_i and a row:

    y_ik = |x_i| cos theta for all rows but that of the label, for which it is
           |x_i| ((-1)^j cos(m theta) - 2 j + lambda cos theta) / (1 + lambda), j pi <= m theta <= (j + 1) pi,

m = 1, 2, 3, 4 for SINGLE, DOUBLE, TRIPLE, QUADRUPLE; lambda = max(lambda_min, base (1 + gamma iteration)^-power), where the
iteration is counted by the forward passes, from ``iteration`` + 1 on. SINGLE has no lambda.

The gradients are those of the authors, not those of y: of the matrix it is dy^T x; of x_i the part of the margin is divided
by the norm of its two coefficients (of the row, and of x_i).

bottoms  x (N, ...), from ``axis`` on one vector; labels (N)
tops     y (N, num_output); optionally lambda, (1)
blob     the matrix (num_output, values)

Ref: Liu et al. 2017, "SphereFace: deep hypersphere embedding for face recognition"
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.matmul.blas import add_product
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.center_loss import labels_of

_TINY = 1e-30


def margin(cosines: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """psi(theta) = (-1)^j cos(m theta) - 2 j, and its derivative by cos theta, for m = order."""
    c = np.clip(cosines, -1, 1)
    value = {1: c, 2: 2 * c**2 - 1, 3: 4 * c**3 - 3 * c, 4: 8 * c**4 - 8 * c**2 + 1}[order]
    slope = {1: np.ones_like(c), 2: 4 * c, 3: 12 * c**2 - 3, 4: 32 * c**3 - 16 * c}[order]
    part = np.minimum(np.floor(order * np.arccos(c) / np.pi), order - 1)
    sign = np.where(part % 2, -1, 1)
    return sign * value - 2 * part, sign * slope


@final
class MarginInnerProduct(Layer):
    TYPE: ClassVar[str] = "MarginInnerProduct"
    KIND: ClassVar[str] = "connected"
    MIXES_CHANNELS: ClassVar[bool] = True
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.margin_inner_product_param.num_output} outputs"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.margin_inner_product_param
        if param.num_output < 1:
            raise self.error("num_output must be at least 1", "margin_inner_product_param", "num_output")
        self.axis = axis_of(self, bottom[0], param.axis, "margin_inner_product_param", "axis")
        shape = (param.num_output, bottom[0].count_of(self.axis))
        self.new_param(shape, "margin_inner_product_param", "weight_filler")
        self._iteration = int(param.iteration)
        self._lambda = 0.0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if x.count_of(self.axis) != self.blobs[0].shape[1]:
            raise self.shape_error(f"the matrix takes {self.blobs[0].shape[1]} values: x has shape {x.shape}")
        self.fold = (x.count_of(0, self.axis), x.count_of(self.axis))
        if bottom[1].count != self.fold[0]:
            raise self.shape_error(f"there must be one label a vector: {bottom[1].shape} and {x.shape}")
        top[0].reshape(*x.shape[: self.axis], len(self.blobs[0].data))
        for blob in top[1:]:
            blob.reshape(1)
        self._labels = np.zeros(self.fold[0], np.int64)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    @property
    def _order(self) -> int:
        return int(self.param.margin_inner_product_param.type) + 1

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, matrix = self.param.margin_inner_product_param, self.blobs[0].data
        self._iteration += 1
        growth = max(1 + param.gamma * self._iteration, _TINY)
        self._lambda = max(param.base * growth ** -float(param.power), float(param.lambda_min))
        matrix /= np.maximum(np.sqrt(np.einsum("kv,kv->k", matrix, matrix)), _TINY)[:, None]
        x, y = bottom[0].data.reshape(self.fold), top[0].data.reshape(self.fold[0], len(matrix))
        self._labels[...] = labels_of(self, bottom[1].data, len(matrix))
        np.matmul(x, matrix.T, out=y)
        if self._order > 1:
            images = np.arange(len(x))
            plain = y[images, self._labels]
            norms = self._norms(x)
            value, _ = margin(plain / norms, self._order)
            y[images, self._labels] = (norms * value + self._lambda * plain) / (1 + self._lambda)
        for blob in top[1:]:
            blob.data[...] = self._lambda

    @staticmethod
    def _norms(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(np.sqrt(np.einsum("nv,nv->n", x, x)), _TINY))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index == 0

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[1]:
            raise self.run_error("MarginInnerProduct has no gradient for the labels")
        matrix, x = self.blobs[0].data, bottom[0].data.reshape(self.fold)
        dy = top[0].diff.reshape(self.fold[0], len(matrix))
        if self.param_propagate_down[0]:
            add_product(dy.T, x, self.blobs[0].diff)
        if not propagate_down[0]:
            return
        dx = bottom[0].diff.reshape(self.fold)
        if self._order == 1:
            np.matmul(dy, matrix, out=dx)
            return
        images = np.arange(len(x))
        rows, norms = matrix[self._labels], self._norms(x)
        cosines = np.einsum("nv,nv->n", x, rows) / norms
        value, slope = margin(cosines, self._order)
        # d(|x| psi) = slope row + (psi - slope cos) x / |x|
        of_row, of_x = slope, (value - slope * cosines) / norms
        length = np.maximum(np.sqrt(of_row**2 + of_x**2), _TINY)
        share = dy[images, self._labels]
        others = dy.copy()
        others[images, self._labels] = 0
        direction = (of_row / length)[:, None] * rows + (of_x / length)[:, None] * x
        dx[...] = (others @ matrix + share[:, None] * direction + self._lambda * (dy @ matrix)) / (1 + self._lambda)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * self.fold[0] * self.blobs[0].count

    def state(self) -> bytes:
        first = int(self.param.margin_inner_product_param.iteration)
        return json.dumps({"iteration": self._iteration}).encode() if self._iteration != first else b""

    def set_state(self, state: bytes) -> None:
        first = int(self.param.margin_inner_product_param.iteration)
        self._iteration = int(json.loads(state)["iteration"]) if state else first
