"""Convolution as im2col and a matrix product per image and group: takes every geometry; the fast plans are tested against it."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry, check_array
from sslnet.kernels.conv.im2col import col2im, im2col
from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.threads import num_parts, parallel


class _Lowered:
    """What the three passes share: the geometry as im2col wants it."""

    def __init__(self, geometry: ConvGeometry) -> None:
        g = self.geometry = geometry
        self.axes = (
            (g.kernel_h, g.kernel_w),
            (g.stride_h, g.stride_w),
            (g.pad_h, g.pad_w),
            (g.dilation_h, g.dilation_w),
        )
        self.pixels = g.out_h * g.out_w

    def col(self) -> np.ndarray:
        """The calling thread's column buffer."""
        columns = self.geometry.columns
        return scratch("col", columns * self.pixels).reshape(columns, self.pixels)

    def by_group(self, array: np.ndarray) -> np.ndarray:
        """(batch, maps, h, w) as (batch, groups, maps / groups, h, w)."""
        return array.reshape(len(array), self.geometry.groups, -1, *array.shape[2:])


class ReferenceForward(_Lowered):
    """y = x * w + b, the largest of that and 0 if relu."""

    def __init__(self, geometry: ConvGeometry, *, relu: bool = False) -> None:
        super().__init__(geometry)
        self.relu = relu

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        g = self.geometry
        check_array("weights", weights, g.weight_shape)
        self.weights = weights.reshape(g.groups, g.group_filters, g.columns).copy()
        self.bias = np.zeros((g.filters, 1), np.float32)
        if bias is not None:
            check_array("bias", bias, (g.filters,))
            self.bias[:, 0] = bias

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        g = self.geometry
        check_array("x", x, g.input_shape)
        check_array("y", y, g.output_shape)
        parallel(self._images, g.batch, self.by_group(x), y.reshape(g.batch, g.filters, self.pixels))

    def _images(self, i0: int, i1: int, thread: int, x: np.ndarray, y: np.ndarray) -> None:
        col = self.col()
        for source, out in zip(x[i0:i1], y[i0:i1], strict=True):
            for channels, weights, target in zip(source, self.weights, out.reshape(len(source), -1, self.pixels)):
                im2col(channels, *self.axes, out=col)
                np.matmul(weights, col, out=target)
            out += self.bias
            if self.relu:
                np.maximum(out, 0, out=out)


class ReferenceInputGrad(_Lowered):
    """dx = the adjoint of the forward pass, applied to dy."""

    def pack(self, weights: np.ndarray) -> None:
        g = self.geometry
        check_array("weights", weights, g.weight_shape)
        self.weights = np.ascontiguousarray(weights.reshape(g.groups, g.group_filters, g.columns).transpose(0, 2, 1))

    def run(self, dy: np.ndarray, dx: np.ndarray) -> None:
        g = self.geometry
        check_array("dy", dy, g.output_shape)
        check_array("dx", dx, g.input_shape)
        parallel(self._images, g.batch, dy.reshape(g.batch, g.groups, -1, self.pixels), self.by_group(dx))

    def _images(self, i0: int, i1: int, thread: int, dy: np.ndarray, dx: np.ndarray) -> None:
        col = self.col()
        for source, out in zip(dy[i0:i1], dx[i0:i1], strict=True):
            for maps, weights, target in zip(source, self.weights, out, strict=True):
                np.matmul(weights, maps, out=col)
                col2im(col, target, *self.axes)


class ReferenceWeightGrad(_Lowered):
    """dw and db: sums over images and positions, thread by thread, then over the threads in their order."""

    def run(
        self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None = None, *, accumulate: bool = True
    ) -> None:
        g = self.geometry
        check_array("x", x, g.input_shape)
        check_array("dy", dy, g.output_shape)
        check_array("dw", dw, g.weight_shape)
        threads = min(num_parts(), g.batch)
        partial = scratch("dw", threads * dw.size).reshape(threads, g.groups, g.group_filters, g.columns)
        partial[:] = 0
        parallel(self._images, g.batch, self.by_group(x), dy.reshape(g.batch, g.groups, -1, self.pixels), partial)
        if not accumulate:
            dw[:] = 0
        for part in partial:
            dw += part.reshape(dw.shape)
        if db is not None:
            check_array("db", db, (g.filters,))
            total = dy.sum(axis=(0, 2, 3))
            db[:] = db + total if accumulate else total

    def _images(self, i0: int, i1: int, thread: int, x: np.ndarray, dy: np.ndarray, partial: np.ndarray) -> None:
        col = self.col()
        for source, grads in zip(x[i0:i1], dy[i0:i1], strict=True):
            for channels, maps, total in zip(source, grads, partial[thread], strict=True):
                im2col(channels, *self.axes, out=col)
                total += maps @ col.T
