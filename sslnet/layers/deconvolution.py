"""Deconvolution: the adjoint of a convolution: each bottom value adds its filter, scaled by the value, to the top.

It works for any number of spatial axes: weights times image, group by group, then col2im; several bottoms share the
weights.

bottom   (N, C, spatial ...), where N stands for all axes before ``axis``
top      (N, num_output, out ...), out = stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad + output_pad; with pad_type
         SAME out = stride size, cut on both sides, an odd row or column at the end, as in TensorFlow
weights  (C, num_output / group, kernel ...); bias (num_output)

Ref: Zeiler et al. 2010; Long, Shelhamer, Darrell 2015
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.conv.im2col import col2im, im2col
from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.threads import num_parts, parallel
from sslnet.layers.base import Blobs
from sslnet.layers.base_convolution import BaseConvolution
from sslnet.layers.bounds import ChannelBox, concatenated, weighted_sums
from sslnet.layers.onnx import OnnxGraph, convolutions


@final
class Deconvolution(BaseConvolution):
    TYPE: ClassVar[str] = "Deconvolution"
    DEFAULT_GROUP: ClassVar[str] = "FILTER"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        super().setup(bottom, top)
        param = self.param.convolution_param
        if len(param.kept_column):
            raise self.error("kept_column is for Convolution", "convolution_param", "kept_column")
        if not self.num_spatial:
            raise self.shape_error(
                f'Deconvolution needs a spatial axis: "{bottom[0].name}" has shape {bottom[0].shape}'
            )
        self.output_pad = self._read_output_pad()
        self.new_param(
            (self.channels, self.num_output // self.group, *self.window.kernel), "convolution_param", "weight_filler"
        )
        if param.bias_term:
            self.new_param((self.num_output,), "convolution_param", "bias_filler")

    def _read_output_pad(self) -> tuple[int, ...]:
        """The rows and columns added at the end, one number for each axis. raises DefinitionError for numbers that are not
        below the stride"""
        param = self.param.convolution_param
        values = list(param.output_pad)
        if values and self.window.same:
            raise self.error("with pad_type SAME there is no output_pad", "convolution_param", "output_pad", 0)
        if len(values) not in (0, 1, self.num_spatial):
            raise self.error(
                f"output_pad is given {len(values)} times for {self.num_spatial} spatial axes",
                "convolution_param",
                "output_pad",
                0,
            )
        spread = tuple(values) if len(values) > 1 else tuple(values or [0]) * self.num_spatial
        for axis, (value, stride) in enumerate(zip(spread, self.window.stride)):
            if value >= stride and value:
                raise self.error(
                    f"output_pad must be below the stride, {stride}, not {value}",
                    "convolution_param",
                    "output_pad",
                    min(axis, len(values) - 1),
                )
        return spread

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        w, sizes = self.window, self.spatial_sizes(bottom, "deconvolve")
        if w.same:
            out = tuple(s * n for n, s in zip(sizes, w.stride))
            w = self.window = w.fitted(out)
        else:
            out = tuple(
                s * (n - 1) + d * (k - 1) + 1 - 2 * p + more
                for n, k, s, p, d, more in zip(sizes, w.kernel, w.stride, w.pad, w.dilation, self.output_pad)
            )
        if min(out) < 1:
            raise self.shape_error(f"pad {w.pad} leaves nothing of the top: {list(out)}", "convolution_param")
        self.reshape_tops(bottom, top, out)
        self.pixels = prod(sizes)
        columns = self.num_output // self.group * prod(w.kernel)
        self._matrix_shape = (self.group, self.channels // self.group, columns)
        self._image_shape = (-1, self.group, self.channels // self.group, self.pixels)
        self._col_shape = (self.group, columns, self.pixels)
        self._top_shape = (-1, self.num_output, *out)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        for source, target in zip(bottom, top):
            x, y = source.data.reshape(self._image_shape), target.data.reshape(self._top_shape)
            parallel(self._forward_images, len(x), x, y)

    def _forward_images(self, i0: int, i1: int, thread: int, x: np.ndarray, y: np.ndarray) -> None:
        w, col = self.window, self._scratch_col()
        weights = self.blobs[0].data.reshape(self._matrix_shape).transpose(0, 2, 1)
        for image, out in zip(x[i0:i1], y[i0:i1]):
            np.matmul(weights, image, out=col)
            col2im(col.reshape(-1, self.pixels), out, *w.axes)
            if len(self.blobs) > 1:
                out += self.blobs[1].data.reshape(-1, *(1,) * self.num_spatial)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        weights_wanted = self.param_propagate_down[0]
        threads = num_parts()
        partial = scratch("deconv dw", threads * self.blobs[0].count, self.dtype).reshape(threads, *self._matrix_shape)
        for source, target, wanted in zip(bottom, top, propagate_down):
            dy = target.diff.reshape(self._top_shape)
            if len(self.blobs) > 1 and self.param_propagate_down[1]:
                bias = self.blobs[1].diff
                bias += dy.reshape(len(dy), self.num_output, -1).sum(axis=(0, 2))
            if not (wanted or weights_wanted):
                continue
            x = source.data.reshape(self._image_shape) if weights_wanted else None
            dx = source.diff.reshape(self._image_shape) if wanted else None
            partial[...] = 0
            parallel(self._backward_images, len(dy), dy, x, dx, partial)
            if weights_wanted:
                dw = self.blobs[0].diff.reshape(self._matrix_shape)
                for part in partial:
                    dw += part

    def _backward_images(
        self,
        i0: int,
        i1: int,
        thread: int,
        dy: np.ndarray,
        x: np.ndarray | None,
        dx: np.ndarray | None,
        partial: np.ndarray,
    ) -> None:
        """Lowers each image's diff once and uses it for dw (summed per thread) and dx."""
        w, col = self.window, self._scratch_col()
        weights = self.blobs[0].data.reshape(self._matrix_shape)
        for i in range(i0, i1):
            im2col(dy[i], *w.axes, out=col.reshape(-1, self.pixels))
            if x is not None:
                partial[thread] += np.matmul(x[i], col.transpose(0, 2, 1))
            if dx is not None:
                np.matmul(weights, col, out=dx[i])

    def _scratch_col(self) -> np.ndarray:
        """The calling thread's workspace for a lowered image: (group, columns, pixels)."""
        return scratch("deconv col", prod(self._col_shape), self.dtype).reshape(self._col_shape)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * self.blobs[0].count // self.channels * sum(blob.count for blob in bottom)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if self.axis != 1:
            return super().bounds(bottom, top)
        bias = self.blobs[1].data if len(self.blobs) > 1 else np.zeros(self.num_output, self.dtype)
        return [self._sums(box.with_zero(), bias) for box in bottom]

    def _sums(self, box: ChannelBox, bias: np.ndarray) -> ChannelBox:
        """The box of the tops, the largest over the phases: a top value meets only taps that are a stride apart."""
        w, each = self.window, self.num_output // self.group
        taps = np.stack(np.meshgrid(*map(np.arange, w.kernel), indexing="ij"), axis=-1).reshape(-1, self.num_spatial)
        phase = taps * np.array(w.dilation) % np.array(w.stride)
        weights = self.blobs[0].data.reshape(self.group, self.channels // self.group, each, -1)
        result = None
        for number in np.unique(phase, axis=0):
            met = weights[..., (phase == number).all(axis=1)]
            parts = [
                weighted_sums(
                    box.take(slice(g * len(own), (g + 1) * len(own))),
                    own.transpose(1, 0, 2),
                    bias[g * each : (g + 1) * each],
                    dtype=self.dtype,
                    terms=own.shape[0] * own.shape[2],
                    error=w.rounding(self.dtype),
                )
                for g, own in enumerate(met)
            ]
            part = concatenated(parts)
            result = part if result is None else result.hull(part)
        assert result is not None
        # A stride longer than the kernel leaves values that no tap meets.
        return result.hull(ChannelBox(bias.astype(np.float64), bias.astype(np.float64)))

    # -- groups of a penalty -------------------------------------------------------------------------------------------

    def group_tiles(self, index: int) -> dict[str, tuple[int, int]]:
        if index:
            return {"FILTER": (1, 1)}
        rows, plane = self.channels // self.group, prod(self.blobs[0].shape[2:])
        return {"FILTER": (rows, plane), "CHANNEL": (1, prod(self.blobs[0].shape[1:])), "FILTER_2D": (1, plane)}

    def weights_by_channel(self) -> np.ndarray | None:
        """The weights as (num_output, C, kernel); None with several groups, each of which reads its own channels."""
        weights = self.blobs[0].data
        return weights.reshape(*weights.shape[:2], -1).swapaxes(0, 1) if self.group == 1 else None

    # -- compaction ----------------------------------------------------------------------------------------------------

    def _kept_weights(self, channels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        groups = channels // (self.channels // self.group)
        return self._by_group(self.blobs[0].data, channels, outputs, groups)

    def _uses(self) -> np.ndarray:
        weights = self.blobs[0].data.reshape(self.group, self.channels // self.group, self.num_output // self.group, -1)
        uses: np.ndarray = (weights != 0).any(axis=3)
        return uses.swapaxes(1, 2)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        w = self.window
        missing = [max(s - d * (k - 1) - 1, 0) if w.same else 0 for k, s, d in zip(w.kernel, w.stride, w.dilation)]
        added = [m + more for m, more in zip(missing, self.output_pad)]
        pads = [*w.pad, *w.pad_end]
        return convolutions(graph, self, "ConvTranspose", inputs, list(w.kernel), pads, output_padding=added)
