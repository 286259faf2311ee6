"""Im2col: lowers images to the matrix that a convolution multiplies with its weights: one column per window.

bottom  (N, C, spatial ...)      top  (N, C * window, out ...)      dx = sum of the column diffs per value
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.conv.im2col import col2im, im2col, output_extent
from sslnet.kernels.runtime.threads import parallel
from sslnet.layers.axes import axis_of, read_window
from sslnet.layers.base import Blobs, Layer


@final
class Im2col(Layer):
    TYPE: ClassVar[str] = "Im2col"
    KIND: ClassVar[str] = "convolution"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, param = bottom[0], self.param.convolution_param
        axis = axis_of(self, x, param.axis, "convolution_param", "axis")
        sizes = x.shape[axis + 1 :]
        w = self.window = read_window(self, param, "convolution_param", len(sizes)).fitted(sizes)
        out = tuple(map(output_extent, sizes, *w.axes))
        if not sizes or min(out) < 1:
            raise self.shape_error(
                f"the window does not fit: {w.kernel} on {sizes} with pad {w.pad}", "convolution_param"
            )
        rows = x.shape[axis] * prod(w.kernel)
        top[0].reshape(*x.shape[:axis], rows, *out)
        images = x.count_of(0, axis)
        self.image_shape, self.col_shape = (images, *x.shape[axis:]), (images, rows, prod(out))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, col = bottom[0].data.reshape(self.image_shape), top[0].data.reshape(self.col_shape)
        parallel(self._lower, len(x), x, col)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            dx, col = bottom[0].diff.reshape(self.image_shape), top[0].diff.reshape(self.col_shape)
            parallel(self._gather, len(dx), dx, col)

    def _lower(self, i0: int, i1: int, thread: int, x: np.ndarray, col: np.ndarray) -> None:
        w = self.window
        for image, columns in zip(x[i0:i1], col[i0:i1]):
            im2col(image, *w.axes, out=columns)

    def _gather(self, i0: int, i1: int, thread: int, dx: np.ndarray, col: np.ndarray) -> None:
        w = self.window
        for image, columns in zip(dx[i0:i1], col[i0:i1]):
            col2im(columns, image, *w.axes)
