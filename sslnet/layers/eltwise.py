"""Eltwise: product, sum or maximum of two or more bottoms of one shape, value by value.

PROD   y = product of x_i                dx_i = dy times the product of the others
                                         (``stable_prod_grad: false``: dy y / x_i, fewer products, NaN where x_i is 0)
SUM    y = sum of coeff_i x_i            dx_i = coeff_i dy
MAX    y = largest x_i                   dx_i = dy for the largest x_i, else 0; on a tie the second of the first two,
                                         else the first
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.pointwise.elementwise import (
    maximum,
    maximum_gradients,
    product,
    product_gradients,
    scaled_copies,
    weighted_sum,
)
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.bounds import ChannelBox, added, multiplied, scaled
from sslnet.layers.onnx import OnnxGraph, linear


@kernel
def _quotient_gradient(i0, i1, thread, x, y, dy, dx):
    x, y, dy, dx = x[i0:i1], y[i0:i1], dy[i0:i1], dx[i0:i1]
    for i in range(dx.size):
        dx[i] = y[i] / x[i] * dy[i]


@final
class Eltwise(Layer):
    TYPE: ClassVar[str] = "Eltwise"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = "removed from all bottoms and the top together"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, None)

    @classmethod
    def describe(cls, param: Any) -> str:
        return pb.EltwiseParameter.EltwiseOp.Name(param.eltwise_param.operation).lower()

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.eltwise_param
        self.operation = param.operation
        if param.coeff and self.operation != pb.EltwiseParameter.SUM:
            raise self.error("coeff is for operation: SUM alone", "eltwise_param", "coeff", 0)
        if len(param.coeff) not in (0, len(bottom)):
            raise self.error(f"{len(param.coeff)} coeff for {len(bottom)} bottoms", "eltwise_param", "coeff", 0)
        self.coeffs = np.array(param.coeff or [1] * len(bottom), self.dtype)
        self._taken = np.empty(0, np.min_scalar_type(len(bottom) - 1))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob in bottom[1:]:
            if blob.shape != bottom[0].shape:
                raise self.shape_error(
                    f'the bottoms must have one shape: "{bottom[0].name}" {bottom[0].shape}, "{blob.name}" {blob.shape}'
                )
        top[0].reshape_like(bottom[0])
        if self.operation == pb.EltwiseParameter.MAX and self._taken.size != top[0].count:
            self._taken = np.empty(top[0].count, self._taken.dtype)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        xs = tuple(blob.data.reshape(-1) for blob in bottom)
        y, cost = top[0].data.reshape(-1), len(xs)
        if self.operation == pb.EltwiseParameter.SUM:
            spread(weighted_sum, y.size, cost, xs, self.coeffs, y, False)
        elif self.operation == pb.EltwiseParameter.PROD:
            spread(product, y.size, cost, xs, y)
        else:
            spread(maximum, y.size, cost, xs, y, self._taken)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return bool(self.operation == pb.EltwiseParameter.PROD)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        wanted = [number for number in range(len(bottom)) if propagate_down[number]]
        if not wanted:
            return
        dy, n, cost, numbers = top[0].diff.reshape(-1), top[0].count, len(wanted), np.array(wanted)
        dxs = tuple(bottom[number].diff.reshape(-1) for number in wanted)
        if self.operation == pb.EltwiseParameter.SUM:
            spread(scaled_copies, n, cost, dy, self.coeffs[numbers], dxs)
        elif self.operation == pb.EltwiseParameter.MAX:
            spread(maximum_gradients, n, cost, self._taken, dy, numbers, dxs)
        elif self.param.eltwise_param.stable_prod_grad:
            xs = tuple(blob.data.reshape(-1) for blob in bottom)
            spread(product_gradients, n, cost * len(xs), xs, dy, numbers, dxs)
        else:
            for number, dx in zip(wanted, dxs):
                x, y = bottom[number].data.reshape(-1), top[0].data.reshape(-1)
                spread(_quotient_gradient, n, 1, x, y, dy, dx)

    def reads_top(self, in_place: bool) -> bool:
        param = self.param.eltwise_param
        return bool(self.operation == pb.EltwiseParameter.PROD and not param.stable_prod_grad)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        each = 2 if len(self.param.eltwise_param.coeff) else 1
        return each * (len(bottom) - 1) * top[0].count

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if self.operation == pb.EltwiseParameter.SUM:
            terms = [scaled(box, np.full(box.size, float(c))) for box, c in zip(bottom, self.coeffs)]
            size = np.sum([term.magnitude for term in terms], axis=0)
            return [reduce(added, terms).widened((len(terms) + 2) * np.finfo(self.dtype).eps * size)]
        if self.operation == pb.EltwiseParameter.PROD:
            return [reduce(multiplied, bottom).rounded(self.dtype, 2 * len(bottom))]
        return [ChannelBox(*(np.max([getattr(box, end) for box in bottom], axis=0) for end in ("low", "high")))]

    # -- compaction: a channel is removed from all bottoms and the top, or kept in all ---------------------------------

    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_and.reduce(bottom)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [top[0] for _ in bottom_constant]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(bottom)]

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(zero)] if self.operation == pb.EltwiseParameter.PROD else []

    def coefficients(self) -> list[float]:
        return self.coeffs.tolist() if self.operation == pb.EltwiseParameter.SUM else []

    def factors(self) -> list[bool]:
        return [True] * len(self.coeffs) if self.operation == pb.EltwiseParameter.PROD else []

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        left = [c for c, keep in zip(param.eltwise_param.coeff, bottom_keep) if len(keep)]
        param.eltwise_param.coeff[:] = left
        return param, blobs

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        operation = self.param.eltwise_param.operation
        if operation == pb.EltwiseParameter.MAX:
            return [graph.node("Max", inputs)]
        if operation == pb.EltwiseParameter.SUM:
            inputs = [linear(graph, name, float(coeff)) for name, coeff in zip(inputs, self.coeffs)]
        operator = "Mul" if operation == pb.EltwiseParameter.PROD else "Add"
        value = inputs[0]
        for other in inputs[1:]:
            value = graph.node(operator, [value, other])
        return [value]
