"""im2col and col2im, the lowering of a convolution to a matrix product, over any number of spatial axes.

    col[(c, k_1 .. k_n), (o_1 .. o_n)] = image[c, o_a * stride_a - pad_a + k_a * dilation_a ...]   zero outside the image

Caffe's order: rows run over channel, then kernel position; columns over output position. This is the reference path that
every other convolution is tested against.

Ref: Chellapilla, Puri, Simard 2006
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sslnet.errors import ShapeError
from sslnet.kernels.runtime.compiler import exact_kernel

Axes = int | Sequence[int]


def output_extent(size: int, kernel: int, stride: int, pad: int, dilation: int, pad_end: int | None = None) -> int:
    """Output positions along one axis: floor((size + pad + pad_end - (dilation (kernel - 1) + 1)) / stride) + 1; <= 0:
    none. pad_end: zeros behind the last value; None: as many as before the first one, ``pad``."""
    return (size + pad + (pad if pad_end is None else pad_end) - (dilation * (kernel - 1) + 1)) // stride + 1


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros in front and behind along one axis with which there are ceil(size / stride) output positions.

    An odd zero is behind. Source: "SAME" of TensorFlow (tf.nn.convolution).
    """
    missing = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return missing // 2, missing - missing // 2


def im2col(
    image: np.ndarray,
    kernel: Axes,
    stride: Axes = 1,
    pad: Axes = 0,
    dilation: Axes = 1,
    pad_end: Axes | None = None,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The lowered matrix of one image.  [overwrites out]

    image   (channels, spatial...)   float32 or float64, C-contiguous
    kernel, stride, pad, dilation    one number, or one per spatial axis
    pad_end   zeros behind the image along each axis; None: pad
    out     (channels * prod(kernel), prod(output extents)), allocated when not given
    raises  ShapeError when no output position fits, or out has another shape or type
    """
    axes = _Axes(image.shape, kernel, stride, pad, dilation, pad_end)
    out = axes.col("out", out, image.dtype)
    if axes.count == 2:
        _im2col_2d(0, image.shape[0], image, out, *axes.numbers)
    else:
        _im2col_nd(0, image.shape[0], axes.flat(image), out, axes.table)
    return out


def col2im(
    col: np.ndarray,
    image: np.ndarray,
    kernel: Axes,
    stride: Axes = 1,
    pad: Axes = 0,
    dilation: Axes = 1,
    pad_end: Axes | None = None,
) -> np.ndarray:
    """The adjoint of im2col: every column entry is added to the pixel it was read from.  [overwrites image]

    raises ShapeError when col is not the lowered matrix of an image of this shape
    """
    axes = _Axes(image.shape, kernel, stride, pad, dilation, pad_end)
    axes.col("col", col, image.dtype)
    if axes.count == 2:
        _col2im_2d(0, image.shape[0], image, col, *axes.numbers)
    else:
        _col2im_nd(0, image.shape[0], axes.flat(image), col, axes.table)
    return image


class _Axes:
    """Kernel, stride, pad, dilation and extents of one lowering: flat numbers for two axes, a table for any number."""

    def __init__(
        self, shape: tuple[int, ...], kernel: Axes, stride: Axes, pad: Axes, dilation: Axes, pad_end: Axes | None
    ) -> None:
        self.count = len(shape) - 1
        if self.count < 1:
            raise ShapeError(f"an image needs a channel axis and at least one spatial axis, not shape {shape}")
        per_axis = [self._spread(value) for value in (kernel, stride, pad, dilation)]
        rows = [(*numbers,) for numbers in zip(shape[1:], *per_axis, strict=True)]
        ends = self._spread(pad if pad_end is None else pad_end)
        outs = [output_extent(n, k, s, p, d, end) for (n, k, s, p, d), end in zip(rows, ends, strict=True)]
        if min(outs) < 1:
            raise ShapeError(f"kernel {kernel} with dilation {dilation} does not fit into {shape[1:]} with pad {pad}")
        self.shape = (shape[0] * math.prod(per_axis[0]), math.prod(outs))
        self.table = np.array([(*row, out) for row, out in zip(rows, outs, strict=True)], np.int64)
        self.numbers = [number for values in (*per_axis, outs) for number in values]

    def col(self, name: str, col: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
        """The given ``col`` after a check of shape and type, or a new array."""
        if col is None:
            return np.empty(self.shape, dtype)
        if col.shape != self.shape or col.dtype != dtype:
            raise ShapeError(f"{name} must be {self.shape} of {dtype}, not {col.shape} of {col.dtype}")
        return col

    def flat(self, image: np.ndarray) -> np.ndarray:
        """The image as (channels, pixels); either may be 0."""
        return image.reshape(image.shape[0], math.prod(image.shape[1:]))

    def _spread(self, value: Axes) -> tuple[int, ...]:
        values = (value,) * self.count if isinstance(value, (int, np.integer)) else tuple(value)
        if len(values) != self.count:
            raise ShapeError(f"{len(values)} values for {self.count} spatial axes")
        return values


@exact_kernel
def _span(out, size, stride, start):
    """The output positions [first, last) whose pixel start + o * stride lies in [0, size)."""
    first = min(out, max(0, (stride - 1 - start) // stride))
    last = max(first, min(out, (size - start + stride - 1) // stride))
    return first, last


@exact_kernel
def _im2col_2d(c0, c1, image, col, kh, kw, sh, sw, ph, pw, dh, dw, oh, ow):
    """Writes the rows of col for the channels [c0, c1) of a (C, H, W) image."""
    height, width = image.shape[1], image.shape[2]
    for c in range(c0, c1):
        for i in range(kh):
            for j in range(kw):
                row = col[(c * kh + i) * kw + j]
                top, left = i * dh - ph, j * dw - pw
                first, last = _span(ow, width, sw, left)
                for r in range(oh):
                    h = r * sh + top
                    line = row[r * ow : (r + 1) * ow]
                    if h < 0 or h >= height:
                        line[:] = 0
                        continue
                    line[:first] = 0
                    line[last:] = 0
                    source = image[c, h]
                    if sw == 1:
                        for o in range(first, last):
                            line[o] = source[o + left]
                    else:
                        for o in range(first, last):
                            line[o] = source[o * sw + left]


@exact_kernel
def _col2im_2d(c0, c1, image, col, kh, kw, sh, sw, ph, pw, dh, dw, oh, ow):
    """Writes the channels [c0, c1) of a (C, H, W) image."""
    height, width = image.shape[1], image.shape[2]
    for c in range(c0, c1):
        image[c] = 0
        for i in range(kh):
            for j in range(kw):
                row = col[(c * kh + i) * kw + j]
                top, left = i * dh - ph, j * dw - pw
                first, last = _span(ow, width, sw, left)
                for r in range(oh):
                    h = r * sh + top
                    if h < 0 or h >= height:
                        continue
                    line = row[r * ow : (r + 1) * ow]
                    target = image[c, h]
                    if sw == 1:
                        for o in range(first, last):
                            target[o + left] += line[o]
                    else:
                        for o in range(first, last):
                            target[o * sw + left] += line[o]


@exact_kernel
def _source(table, tap, column):
    """The pixel that kernel position tap reads at output position column (both flat); -1 in the padding."""
    index, weight = 0, 1
    for a in range(table.shape[0] - 1, -1, -1):
        size, kernel, stride, pad, dilation, out = table[a]
        position = (column % out) * stride - pad + (tap % kernel) * dilation
        if position < 0 or position >= size:
            return -1
        index += position * weight
        weight *= size
        column //= out
        tap //= kernel
    return index


@exact_kernel
def _im2col_nd(c0, c1, image, col, table):
    """Writes the rows of col for the channels [c0, c1) of a (C, pixels) image.

    table   its rows are size, kernel, stride, pad, dilation, out
    """
    taps = col.shape[0] // max(1, image.shape[0])
    for tap in range(taps):
        for column in range(col.shape[1]):
            source = _source(table, tap, column)
            for c in range(c0, c1):
                col[c * taps + tap, column] = image[c, source] if source >= 0 else 0


@exact_kernel
def _col2im_nd(c0, c1, image, col, table):
    """Writes the channels [c0, c1) of a (C, pixels) image."""
    taps = col.shape[0] // max(1, image.shape[0])
    image[c0:c1] = 0
    for tap in range(taps):
        for column in range(col.shape[1]):
            source = _source(table, tap, column)
            if source >= 0:
                for c in range(c0, c1):
                    image[c, source] += col[c * taps + tap, column]
