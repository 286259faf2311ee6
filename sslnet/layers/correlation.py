"""Correlation: the products of patches of one image with displaced patches of another (FlowNet).

    y[n, d, i, j] = sum over c and a k x k patch of a[n, c, p + o] b[n, c, p + o + d] / (k^2 C)

with p = (i, j) * stride_1 + max_displacement, o the place in the patch, both in images with ``pad`` zeros at each side. The
displacements d = (v, u) are multiples of stride_2 up to max_displacement, rows first. SUBTRACT takes |a - b| instead of a b.

bottoms  a, b (N, C, H, W)
top      (N, displacements, rows, columns)

Ref: Fischer et al. 2015, "FlowNet: learning optical flow with convolutional networks"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs, Layer


@final
class Correlation(Layer):
    TYPE: ClassVar[str] = "Correlation"
    KIND: ClassVar[str] = "convolution"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.correlation_param
        if param.kernel_size % 2 == 0:
            message = f"kernel_size must be odd, not {param.kernel_size}"
            raise self.error(message, "correlation_param", "kernel_size")
        for name in ("stride_1", "stride_2"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", "correlation_param", name)
        if param.single_direction:
            raise self.error("single_direction is not supported", "correlation_param", "single_direction")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.correlation_param
        if bottom[0].num_axes != 4 or bottom[0].shape != bottom[1].shape:
            raise self.shape_error(f"both bottoms must be images of one shape: {[blob.shape for blob in bottom]}")
        border = param.max_displacement + param.kernel_size // 2
        padded = [size + 2 * param.pad for size in bottom[0].shape[2:]]
        out = [-(-(size - 2 * border) // param.stride_1) for size in padded]
        if min(out) < 1:
            raise self.shape_error(f"displacement and kernel do not fit into {bottom[0].shape} with pad {param.pad}")
        radius = param.max_displacement // param.stride_2
        self.steps = [step * param.stride_2 for step in range(-radius, radius + 1)]
        top[0].reshape(bottom[0].shape[0], len(self.steps) ** 2, *out)
        shape = (2, bottom[0].shape[0], bottom[0].shape[1], *padded)
        self._padded, self._diffs = np.zeros(shape, self.dtype), np.zeros(shape, self.dtype)

    def _inner(self, array: np.ndarray) -> np.ndarray:
        """The part of a padded array that is not padding."""
        pad = self.param.correlation_param.pad
        return array[:, :, pad : array.shape[2] - pad, pad : array.shape[3] - pad]

    def _fill(self, bottom: Blobs) -> None:
        for array, blob in zip(self._padded, bottom):
            self._inner(array)[...] = blob.data

    def _places(self, size: Sequence[int]) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
        """For each displacement and place in the patch: number of the displacement, pixels of a, pixels of b."""
        param = self.param.correlation_param
        for number in range(len(self.steps) ** 2):
            down, right = self.steps[number // len(self.steps)], self.steps[number % len(self.steps)]
            for y in range(param.kernel_size):
                for x in range(param.kernel_size):
                    top, left = param.max_displacement + y, param.max_displacement + x
                    yield number, self._cut(top, left, size), self._cut(top + down, left + right, size)

    def _cut(self, top: int, left: int, size: Sequence[int]) -> tuple[slice, slice]:
        stride = self.param.correlation_param.stride_1
        ends = (top + (size[0] - 1) * stride + 1, left + (size[1] - 1) * stride + 1)
        return slice(top, ends[0], stride), slice(left, ends[1], stride)

    @property
    def _subtracts(self) -> bool:
        return bool(self.param.correlation_param.correlation_type == pb.CorrelationParameter.SUBTRACT)

    def _divisor(self, bottom: Blobs) -> int:
        return int(self.param.correlation_param.kernel_size**2 * max(1, bottom[0].shape[1]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self._fill(bottom)
        a, b = self._padded
        y = top[0].data
        y[...] = 0
        for number, of_a, of_b in self._places(y.shape[2:]):
            first, second = a[:, :, *of_a], b[:, :, *of_b]
            if self._subtracts:
                y[:, number] += np.abs(first - second).sum(axis=1)
            else:
                y[:, number] += np.einsum("ncij,ncij->nij", first, second)
        y /= self._divisor(bottom)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not any(propagate_down):
            return
        self._fill(bottom)
        (a, b), dy = self._padded, top[0].diff / self._divisor(bottom)
        da, db = self._diffs
        self._diffs[...] = 0
        for number, of_a, of_b in self._places(dy.shape[2:]):
            first, second, slope = a[:, :, *of_a], b[:, :, *of_b], dy[:, number][:, None]
            if self._subtracts:
                sign = np.sign(first - second) * slope
                da[:, :, *of_a] += sign
                db[:, :, *of_b] -= sign
            else:
                da[:, :, *of_a] += second * slope
                db[:, :, *of_b] += first * slope
        for blob, diff, wanted in zip(bottom, self._diffs, propagate_down):
            if wanted:
                blob.diff[...] = self._inner(diff)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * top[0].count * self._divisor(bottom)
