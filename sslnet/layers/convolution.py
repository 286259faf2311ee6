"""Convolution: y[n, f] = b[f] + sum over channels c of f's group and window positions of w[f, c, ...] * x[n, c, ...].

This is the reference implementation, for any number of spatial axes: it lowers each image (im2col) and multiplies it
with the weights, group by group; several bottoms share the weights. ``sslnet.net.plan`` has others for 2-D float32.

bottom   (N, C, spatial ...), where N stands for all axes before ``axis``
top      (N, num_output, out ...), out = (size + 2 pad - (dilation (kernel - 1) + 1)) // stride + 1; with pad_type SAME
         out = ceil(size / stride), by zeros on both sides, an odd one at the end, as in TensorFlow
weights  (num_output, C / group, kernel ...), or (num_output, kept) with ``kept_column``; bias (num_output)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np

from sslnet.kernels.conv.im2col import col2im, im2col, output_extent
from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.threads import num_parts, parallel
from sslnet.layers.base import Blobs
from sslnet.layers.base_convolution import BaseConvolution
from sslnet.layers.bounds import ChannelBox, concatenated, weighted_sums
from sslnet.layers.kept_columns import crop_kernel, drop_columns, expand_columns, read_kept_columns, without_border
from sslnet.layers.onnx import OnnxGraph, convolutions


class Convolution(BaseConvolution):
    TYPE: ClassVar[str] = "Convolution"
    DEFAULT_GROUP: ClassVar[str] = "FILTER"
    LOW_RANK: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        super().setup(bottom, top)
        param = self.param.convolution_param
        self.whole_shape = (self.num_output, self.channels // self.group, *self.window.kernel)
        """Shape of the weights with all columns: (num_output, C / group, kernel ...)."""
        self.kept = read_kept_columns(self, param, self.group, prod(self.whole_shape[1:]))
        """(group, kept) int64: the stored columns of the weight matrix; None: all."""
        self.frozen: np.ndarray | None = None
        """One byte per weight, 0 where training keeps it at zero and needs no gradient; None: all are trained."""
        shape = self.whole_shape if self.kept is None else (self.num_output, self.kept.shape[1])
        self.new_param(shape, "convolution_param", "weight_filler")
        if param.bias_term:
            self.new_param((self.num_output,), "convolution_param", "bias_filler")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        sizes = self.spatial_sizes(bottom, "convolve")
        w = self.window = self.window.fitted(sizes)
        self.out = tuple(map(output_extent, sizes, *w.axes))
        if any(n < 1 for n in self.out):
            raise self.shape_error(
                f"the kernel does not fit: {w.kernel} with dilation {w.dilation} on {sizes} with pad {w.pad}",
                "convolution_param",
            )
        self.reshape_tops(bottom, top, self.out)
        self.columns = self.blobs[0].count // self.num_output
        """Number of weights of one filter."""
        self.pixels = prod(self.out)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        for source, target in zip(bottom, top):
            x, y = self._images(source.data), target.data.reshape(-1, self.group, self._group_filters, self.pixels)
            parallel(self._forward_images, len(x), x, y)

    def _forward_images(self, i0: int, i1: int, thread: int, x: np.ndarray, y: np.ndarray) -> None:
        bias = self.blobs[1].data.reshape(self.group, -1, 1) if len(self.blobs) > 1 else None
        for image, out in zip(x[i0:i1], y[i0:i1]):
            np.matmul(self._matrices(self.blobs[0].data), self._lower(image), out=out)
            if bias is not None:
                out += bias

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for index, (source, target) in enumerate(zip(bottom, top)):
            dy = target.diff.reshape(-1, self.group, self._group_filters, self.pixels)
            if len(self.blobs) > 1 and self.param_propagate_down[1]:
                bias = self.blobs[1].diff
                bias += dy.sum(axis=(0, 3)).reshape(-1)
            if self.param_propagate_down[0]:
                self._weight_gradient(self._images(source.data), dy)
            if propagate_down[index]:
                parallel(self._backward_images, len(dy), dy, self._images(source.diff))

    def _weight_gradient(self, x: np.ndarray, dy: np.ndarray) -> None:
        """Adds to dw the sum over images: first per thread, then over the threads in a fixed order."""
        threads = min(num_parts(), len(x))
        partial = scratch("conv dw", threads * self.blobs[0].count, self.dtype).reshape(threads, *self._matrix_shape)
        partial[...] = 0

        def images(i0: int, i1: int, thread: int) -> None:
            product = scratch("conv dw image", self.blobs[0].count, self.dtype).reshape(self._matrix_shape)
            for image, above in zip(x[i0:i1], dy[i0:i1]):
                np.matmul(above, self._lower(image).transpose(0, 2, 1), out=product)
                partial[thread] += product

        parallel(images, len(x))
        dw = self._matrices(self.blobs[0].diff)
        for part in partial:
            dw += part

    def _backward_images(self, i0: int, i1: int, thread: int, dy: np.ndarray, dx: np.ndarray) -> None:
        w = self.window
        weights = self._matrices(self.blobs[0].data).transpose(0, 2, 1)
        for above, image in zip(dy[i0:i1], dx[i0:i1]):
            if self.kept is not None:
                col = self._col()
                col[...] = 0
                for lines, columns, values in zip(col, self.kept, np.matmul(weights, above), strict=True):
                    lines[columns] = values
                col2im(col.reshape(-1, self.pixels), image, *w.axes)
                continue
            col = self._col() if not w.is_point else image.reshape(self.group, self.columns, self.pixels)
            np.matmul(weights, above, out=col)
            if not w.is_point:
                col2im(col.reshape(-1, self.pixels), image, *w.axes)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * self.columns * sum(blob.count for blob in top)

    # -- shapes --------------------------------------------------------------------------------------------------------

    @property
    def _group_filters(self) -> int:
        return self.num_output // self.group

    @property
    def _matrix_shape(self) -> tuple[int, int, int]:
        return (self.group, self._group_filters, self.columns)

    def _matrices(self, weights: np.ndarray) -> np.ndarray:
        """Weights, or their diff, as one matrix per group: (group, filters of a group, columns)."""
        return weights.reshape(self._matrix_shape)

    def _images(self, array: np.ndarray) -> np.ndarray:
        """The bottom's data or diff as (images, C, spatial ...)."""
        return array.reshape(prod(array.shape[: self.axis]), *array.shape[self.axis :])

    def _col(self) -> np.ndarray:
        """The calling thread's workspace for a lowered image, all columns: (group, columns, pixels)."""
        columns = prod(self.whole_shape[1:])
        return scratch("conv col", self.group * columns * self.pixels, self.dtype).reshape(
            self.group, columns, self.pixels
        )

    def _lower(self, image: np.ndarray) -> np.ndarray:
        """One image (C, spatial ...) lowered to (group, columns, pixels), only the kept columns."""
        w = self.window
        if w.is_point and self.kept is None:
            return image.reshape(self.group, self.columns, self.pixels)
        col = self._col()
        im2col(image, *w.axes, out=col.reshape(-1, self.pixels))
        return col if self.kept is None else np.take_along_axis(col, self.kept[:, :, None], axis=1)

    def whole_weights(self) -> np.ndarray:
        """The weights (num_output, C / group, kernel ...), zero at the columns that are not kept. Read-only."""
        weights = self.blobs[0].data
        return weights if self.kept is None else expand_columns(weights, self.kept, self.whole_shape)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if self.axis != 1:
            return super().bounds(bottom, top)
        weights = self.whole_weights().reshape(self.num_output, self.channels // self.group, -1)
        bias = self.blobs[1].data if len(self.blobs) > 1 else None
        boxes = [box.with_zero() if any((*self.window.pad, *self.window.pad_end)) else box for box in bottom]
        return [self._sums(box, weights, bias) for box in boxes]

    def _sums(self, box: ChannelBox, weights: np.ndarray, bias: np.ndarray | None) -> ChannelBox:
        """The box of the outputs: each group of filters sums the channels of its group."""
        parts, filters, inside = [], self._group_filters, self.channels // self.group
        for g in range(self.group):
            rows = slice(g * filters, (g + 1) * filters)
            own = box.take(slice(g * inside, (g + 1) * inside))
            part = None if bias is None else bias[rows]
            error = self.window.rounding(self.dtype)
            parts.append(weighted_sums(own, weights[rows], part, dtype=self.dtype, terms=self.columns, error=error))
        return concatenated(parts)

    # -- groups of a penalty -------------------------------------------------------------------------------------------

    def group_tiles(self, index: int) -> dict[str, tuple[int, int]]:
        if index:
            return {"FILTER": (1, 1)}
        rows, plane = self._group_filters, prod(self.blobs[0].shape[2:])
        columns = prod(self.blobs[0].shape[1:])
        return {"FILTER": (1, columns), "CHANNEL": (rows, plane), "SHAPE": (rows, 1), "FILTER_2D": (1, plane)}

    def weights_by_channel(self) -> np.ndarray | None:
        """The weights as (num_output, C, kernel); None with several groups, each of which reads its own channels."""
        return self.whole_weights().reshape(self.num_output, self.channels, -1) if self.group == 1 else None

    # -- compaction ----------------------------------------------------------------------------------------------------

    def shrink_columns(self, param: Any, blobs: list[np.ndarray], *, standard_only: bool) -> list[np.ndarray]:
        """Crops zero kernel borders; then drops zero columns (``kept_column``), or with standard_only none."""
        if self._keeps_all:
            return blobs
        sub, weights = param.convolution_param, blobs[0]
        if len(sub.kept_column):
            # The weights are unchanged: a removal of channels would have stored all columns.
            weights = expand_columns(weights, np.array(sub.kept_column).reshape(self.group, -1), self.whole_shape)
            sub.ClearField("kept_column")
        weights = crop_kernel(sub, weights, self.window)
        if standard_only:
            sub.ClearField("conv_mode")
        else:
            weights = drop_columns(sub, weights)
        return [weights, *blobs[1:]]

    def _kept_weights(self, channels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        groups = outputs // (self.num_output // self.group)
        return self._by_group(self.whole_weights(), outputs, channels, groups)

    def _uses(self) -> np.ndarray:
        weights = self.whole_weights().reshape(self.group, self._group_filters, self.channels // self.group, -1)
        uses: np.ndarray = (weights != 0).any(axis=3)
        return uses

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        w = self.window
        if self.kept is None:
            return convolutions(graph, self, "Conv", inputs, list(w.kernel), [*w.pad, *w.pad_end])
        weights, pads = without_border(self.whole_weights(), w)
        name = graph.param(self, 0, weights, "whole" + "_".join(map(str, pads)))
        return convolutions(graph, self, "Conv", inputs, list(weights.shape[2:]), pads, name)
