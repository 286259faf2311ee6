"""The product of a fully connected layer without the zero rows and columns of its weights.

    kept = keep_product(images, weights, bias)   None where too few are zero to be faster
    kept.run(x, y, relu=True)                    y = x w^T + bias   x (images, columns), y (images, rows)

The kept weights are copied once, so the weights must not change afterwards. Dropped weights contribute zero, even where
x is infinite.
"""

from __future__ import annotations

import numpy as np

from sslnet.kernels.conv.pattern import find_kept, hardly_zero
from sslnet.kernels.matmul.fully_connected import plan_dot
from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.plan import KernelPlan

WORTH = 0.7
"""The largest fraction of kept weights at which the product of kept weights is faster."""
SMALL = 1 << 16
"""Weights below which gathering columns takes longer than multiplying all weights."""


class KeptProduct(KernelPlan):
    """A plan of y = x w^T + bias over the kept rows and columns of w.

    rows, columns   sorted indices of the kept rows and columns
    weights         (kept rows, kept columns), C-contiguous
    bias            (all rows,) or None
    shape           (rows, columns) of the whole w
    """

    def __init__(
        self,
        images: int,
        rows: np.ndarray,
        columns: np.ndarray,
        weights: np.ndarray,
        bias: np.ndarray | None,
        shape: tuple[int, int],
    ) -> None:
        self.rows = rows if len(rows) < shape[0] else None
        self.columns = columns if len(columns) < shape[1] else None
        self.weights = weights
        self.bias = np.zeros(shape[0], np.float32) if bias is None else bias.copy()
        self.kept_bias = self.bias[rows]
        plan = plan_dot(images, *weights.shape) if weights.size else None
        super().__init__(plan, x=(images, shape[1]), y=(images, shape[0]))

    @property
    def kernel(self) -> str:
        return f"kept {self.loop.kernel}" if self.loop is not None else "kept nothing"

    def run(self, x: np.ndarray, y: np.ndarray, *, relu: bool = False) -> None:
        """Computes the product; negative outputs become 0 if relu.  [overwrites y]"""
        self.check(x=x, y=y)
        images, (rows, columns) = len(x), self.weights.shape
        if self.columns is not None:
            chosen = scratch("kept x", images * columns).reshape(images, columns)
            np.take(x, self.columns, axis=1, out=chosen, mode="clip")
            x = chosen
        if self.rows is None:
            self._multiply(x, y, relu)
            return
        found = scratch("kept y", images * rows).reshape(images, rows)
        self._multiply(x, found, relu)
        y[...] = np.maximum(self.bias, 0) if relu else self.bias
        y[:, self.rows] = found

    def _multiply(self, x: np.ndarray, y: np.ndarray, relu: bool) -> None:
        if self.loop is not None:
            self.loop.run(x, self.weights, y, self.kept_bias, relu=relu)
        elif y.size:
            y[...] = np.maximum(self.kept_bias, 0) if relu else self.kept_bias


def keep_product(
    images: int, weights: np.ndarray, bias: np.ndarray | None, *, transpose: bool = False
) -> KeptProduct | None:
    """The plan for these weights, or None if too few of their rows and columns are zero.

    weights   (rows, columns), C-contiguous float32; (columns, rows) with transpose
    bias      (rows,) or None
    """
    if weights.size < SMALL or hardly_zero(weights):
        return None
    kept = find_kept(weights)
    if kept.share > WORTH:
        return None
    (rows,), (columns,) = (kept.columns, kept.filters) if transpose else (kept.filters, kept.columns)
    left = weights[np.ix_(columns, rows)].T if transpose else weights[np.ix_(rows, columns)]
    shape = weights.shape[::-1] if transpose else weights.shape
    return KeptProduct(images, rows, columns, np.ascontiguousarray(left), bias, shape)
