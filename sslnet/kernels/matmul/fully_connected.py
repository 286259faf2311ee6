"""The products of the fully connected layer: the rows of few images times a large matrix.

    plan_dot(images, rows, columns).run(a, w, y, bias, relu=True)   y = a w^T + bias   a (images, columns)
    plan_sum(images, rows, columns).run(a, w, y, bias, relu=True)   y = a w + bias     a (images, rows)
    plan_outer(images, rows, columns).run(a, b, w)                  w += a^T b         a (images, rows), b (images, columns)

w (rows, columns) is read or updated once, in its own layout, so a change of w needs no packing. Arrays are C-contiguous
float32 of any alignment, and nothing outside them is read or written. For a given number of threads the same input
gives the same bits. A plan must not be run by two threads at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.kernels.matmul.blas import add_product, multiply
from sslnet.kernels.matmul.loops import DotLoop, OuterLoop, ProductShape, SumLoop
from sslnet.kernels.runtime.plan import KernelPlan
from sslnet.kernels.simd.vector import GENERIC, VectorUnit, vector_unit

__all__ = ["OuterPlan", "ProductPlan", "plan_dot", "plan_outer", "plan_sum"]

SMALL = 1 << 19
"""Multiply-adds below which BLAS is faster, because its overhead is smaller."""
FEW_ROWS = 24
"""Rows of w below which loading and storing the sums takes longer than the multiply-adds."""
FEW_IMAGES = 2
"""Images below which y = a w is a matrix-vector product, which BLAS computes at the speed of memory."""


class ProductPlan(KernelPlan):
    """A plan of y = a w^T + bias (dot), or y = a w + bias (sum), with optional ReLU."""

    def __init__(self, shape: ProductShape, loop: Any, *, dot: bool) -> None:
        ends = (shape.columns, shape.rows) if dot else (shape.rows, shape.columns)
        a, y = ((shape.images, count) for count in ends)
        super().__init__(loop, a=a, w=(shape.rows, shape.columns), y=y, bias=y[1:])

    def run(
        self, a: np.ndarray, w: np.ndarray, y: np.ndarray, bias: np.ndarray | None = None, *, relu: bool = False
    ) -> None:
        """Computes the product; negative outputs become 0 if relu.  [overwrites y]"""
        self.check(a=a, w=w, y=y, bias=bias)
        self.loop.run(a, w, y, bias, relu)


class OuterPlan(KernelPlan):
    """A plan of w += a^T b."""

    def __init__(self, shape: ProductShape, loop: Any) -> None:
        s = shape
        super().__init__(loop, a=(s.images, s.rows), b=(s.images, s.columns), w=(s.rows, s.columns))

    def run(self, a: np.ndarray, b: np.ndarray, w: np.ndarray) -> None:
        """Adds the product of every image to w.  [accumulates into w]"""
        self.check(a=a, b=b, w=w)
        self.loop.run(a, b, w)


def plan_dot(images: int, rows: int, columns: int, *, unit: VectorUnit | None = None, blas: bool = True) -> ProductPlan:
    """A plan of y (images, rows) = a (images, columns) w^T + bias; unit: the vector unit, None: the machine's best.

    blas   whether BLAS may compute small products; a tape can take only the loop nest
    """
    shape, unit = ProductShape(images, rows, columns), unit or vector_unit()
    by_blas = unit == GENERIC or (blas and _suits_blas(shape, unit))
    return ProductPlan(shape, BlasProduct(dot=True) if by_blas else DotLoop(shape, unit), dot=True)


def plan_sum(images: int, rows: int, columns: int, *, unit: VectorUnit | None = None) -> ProductPlan:
    """A plan of y (images, columns) = a (images, rows) w + bias; unit as in plan_dot."""
    shape, unit = ProductShape(images, rows, columns), unit or vector_unit()
    blas = _suits_blas(shape, unit) or rows < FEW_ROWS or images < FEW_IMAGES
    return ProductPlan(shape, BlasProduct(dot=False) if blas else SumLoop(shape, unit), dot=False)


def plan_outer(images: int, rows: int, columns: int, *, unit: VectorUnit | None = None) -> OuterPlan:
    """A plan of w += a^T b; unit as in plan_dot."""
    shape, unit = ProductShape(images, rows, columns), unit or vector_unit()
    return OuterPlan(shape, BlasOuter() if _suits_blas(shape, unit) else OuterLoop(shape, unit))


def _suits_blas(shape: ProductShape, unit: VectorUnit) -> bool:
    """Whether BLAS suits: the product is small, or the vector unit has no known multiply-add instruction."""
    return shape.multiply_adds < SMALL or unit == GENERIC


class BlasProduct:
    """The product of DotLoop (dot) or SumLoop, computed by BLAS."""

    kernel = "blas"
    TAPED = False

    def __init__(self, *, dot: bool) -> None:
        self.dot = dot

    def run(self, a: np.ndarray, w: np.ndarray, y: np.ndarray, bias: np.ndarray | None, relu: bool) -> None:
        multiply(a, w.T if self.dot else w, y)
        if bias is not None:
            y += bias
        if relu:
            np.maximum(y, 0, out=y)


class BlasOuter:
    """The product of OuterLoop, computed by BLAS."""

    kernel = "blas"

    def run(self, a: np.ndarray, b: np.ndarray, w: np.ndarray) -> None:
        add_product(a.T, b, w)
