"""Deconvolution: the adjoint of a convolution: each bottom value adds its filter, scaled by the value, to the top.

It works for any number of spatial axes: weights times image, group by group, then col2im; several bottoms share the
weights.

bottom   (N, C, spatial ...), where N stands for all axes before ``axis``
top      (N, num_output, out ...), out = stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad
weights  (C, num_output / group, kernel ...); bias (num_output)

Ref: Zeiler et al. 2010; Long, Shelhamer, Darrell 2015
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.conv.im2col import col2im, im2col
from sslnet.kernels.runtime.memory import scratch
from sslnet.kernels.runtime.threads import num_parts, parallel
from sslnet.layers.affine import fold_shift
from sslnet.layers.axes import axis_of, read_groups, read_window, window_words
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.equal_groups import kept_places, matched_groups
from sslnet.layers.onnx import OnnxGraph, convolutions


@final
class Deconvolution(Layer):
    TYPE: ClassVar[str] = "Deconvolution"
    KIND: ClassVar[str] = "convolution"
    HAS_WEIGHTS: ClassVar[bool] = True
    MIXES_CHANNELS: ClassVar[bool] = True
    DEFAULT_GROUP: ClassVar[str] = "FILTER"
    CHANNELS: ClassVar[str] = (
        "filters and inputs are removed, constants folded into the bias; of several groups, whole ones, and equal places of "
        "all; along another axis, or with several bottoms, all are kept"
    )
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, None)
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)
    EQUAL_BOTTOMS_TOPS: ClassVar[bool] = True

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{window_words(param.convolution_param)} · {param.convolution_param.num_output} filters"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.convolution_param
        self.axis = axis_of(self, bottom[0], param.axis, "convolution_param", "axis")
        self.num_spatial = bottom[0].num_axes - self.axis - 1
        self.window = read_window(self, param, "convolution_param", self.num_spatial)
        if len(param.kept_column):
            raise self.error("kept_column is for Convolution", "convolution_param", "kept_column")
        self.channels = bottom[0].shape[self.axis]
        if not self.num_spatial:
            raise self.shape_error(
                f'Deconvolution needs a spatial axis: "{bottom[0].name}" has shape {bottom[0].shape}'
            )
        self.num_output, self.group = read_groups(self, param, self.channels)
        self.new_param(
            (self.channels, self.num_output // self.group, *self.window.kernel), "convolution_param", "weight_filler"
        )
        if param.bias_term:
            self.new_param((self.num_output,), "convolution_param", "bias_filler")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        first, w = bottom[0], self.window
        for blob in bottom:
            if blob.shape != first.shape:
                raise self.shape_error(
                    f'bottoms that share weights must have one shape: "{first.name}" {first.shape}, "{blob.name}" {blob.shape}'
                )
        if first.num_axes != self.axis + 1 + self.num_spatial or first.shape[self.axis] != self.channels:
            raise self.shape_error(
                f"the weights take {self.channels} channels and {self.num_spatial} spatial axes, "
                f'"{first.name}" has shape {first.shape}'
            )
        sizes = first.shape[self.axis + 1 :]
        out = [
            s * (n - 1) + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in zip(sizes, w.kernel, w.stride, w.pad, w.dilation)
        ]
        if 0 in sizes:
            raise self.shape_error(f'there are no pixels to deconvolve: "{first.name}" has shape {first.shape}')
        if min(out) < 1:
            raise self.shape_error(f"pad {w.pad} leaves nothing of the top: {out}", "convolution_param")
        for blob in top:
            blob.reshape(*first.shape[: self.axis], self.num_output, *out)
        self._top_channels = top[0].shape[1]
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
            col2im(col.reshape(-1, self.pixels), out, w.kernel, w.stride, w.pad, w.dilation)
            if len(self.blobs) > 1:
                out += self.blobs[1].data.reshape(-1, *(1,) * self.num_spatial)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return self.param_propagate_down[0]

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
            im2col(dy[i], w.kernel, w.stride, w.pad, w.dilation, out=col.reshape(-1, self.pixels))
            if x is not None:
                partial[thread] += np.matmul(x[i], col.transpose(0, 2, 1))
            if dx is not None:
                np.matmul(weights, col, out=dx[i])

    def _scratch_col(self) -> np.ndarray:
        """The calling thread's workspace for a lowered image: (group, columns, pixels)."""
        return scratch("deconv col", prod(self._col_shape), self.dtype).reshape(self._col_shape)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * self.blobs[0].count // self.channels * sum(blob.count for blob in bottom)

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

    # -- compaction: as for Convolution, with the axes of bottom and top exchanged in the weights ----------------------

    SHRINKS: ClassVar[bool] = True
    ABSORBS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """True for outputs whose weights on all channels that vary are zero."""
        if self._refuses:
            return []
        varies = ~bottom[0].reshape(self.group, -1, 1)
        return [~(self._uses() & varies).any(axis=1).reshape(-1)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        """True for channels that vary and have a nonzero weight to a kept output."""
        if self._refuses:
            return []
        read = (self._uses() & top[0].reshape(self.group, 1, -1)).any(axis=2).reshape(-1)
        return [read & ~bottom_constant[0]]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        if self._refuses:
            return [np.ones(self._top_channels, bool) for _ in self.param.top]
        return []

    def matched_channels(
        self, bottom: list[BoolVector], top: list[BoolVector]
    ) -> tuple[list[BoolVector], list[BoolVector]]:
        if self._refuses or self.group == 1:
            return [], []
        below, above = matched_groups(bottom[0], top[0], self.group)
        return [below], [above]

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if self._refuses:
            return param, blobs
        outputs = top_keep[0]
        groups, places = kept_places(outputs, self.num_output // self.group)
        weights = blobs[0][bottom_keep[0]][:, places]
        if self.group > 1:
            param.convolution_param.group = groups
        param.convolution_param.num_output = len(outputs)
        bias = fold_shift(param, param.convolution_param, blobs[1][outputs] if len(blobs) > 1 else None, shift)
        return param, [weights] if bias is None else [weights, bias]

    @property
    def _refuses(self) -> bool:
        return self.axis != 1 or len(self.param.bottom) > 1

    def _uses(self) -> np.ndarray:
        """(group, channels of a group, outputs of a group) bool: whether a weight between them is nonzero."""
        weights = self.blobs[0].data.reshape(self.group, self.channels // self.group, self.num_output // self.group, -1)
        return (weights != 0).any(axis=3)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        w = self.window
        return convolutions(graph, self, "ConvTranspose", inputs, list(w.kernel), [*w.pad, *w.pad])
