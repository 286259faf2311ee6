"""PSROIPooling: means of position-sensitive windows of each region (R-FCN).

A region is x1 = round(x1) scale .. (round(x2) + 1) scale wide, at least 0.1 pixels; window (i, j) of group_size x group_size
covers floor .. ceil of its ends, within the image. Output channel c takes its value there from input channel
(c group_size + i) group_size + j alone: the mean over the window, 0 for one without pixels.

bottom  x (N, output_dim group_size^2, H, W), regions (R, 5) of image index, x1, y1, x2, y2 in pixels of the image
top     (R, output_dim, group_size, group_size)

Ref: Dai, Li, He, Sun 2016, R-FCN
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.regions import check_regions, region_count
from sslnet.layers.roi_pooling import _rounded


@kernel
def _window(start, size, index, length):
    """The first pixel of a window, and the one behind its last, within an image of this length."""
    first = np.int64(np.floor(index * size + start))
    end = np.int64(np.ceil((index + 1) * size + start))
    return min(max(first, 0), length), min(max(end, 0), length)


@kernel
def _spans(regions, scale, group, height, width, spans):
    """(R, group, 4): first and end row of window row i, first and end column of window column i."""
    for r in range(len(regions)):
        left, top = _rounded(regions[r, 1]) * scale, _rounded(regions[r, 2]) * scale
        right, bottom = (_rounded(regions[r, 3]) + 1.0) * scale, (_rounded(regions[r, 4]) + 1.0) * scale
        wide, high = max(right - left, 0.1) / group, max(bottom - top, 0.1) / group
        for i in range(group):
            spans[r, i, 0], spans[r, i, 1] = _window(top, high, i, height)
            spans[r, i, 2], spans[r, i, 3] = _window(left, wide, i, width)


@kernel
def _forward(r0, r1, thread, x, images, spans, y):
    group = y.shape[2]
    for r in range(r0, r1):
        for c in range(y.shape[1]):
            for i in range(group):
                for j in range(group):
                    plane = x[images[r], (c * group + i) * group + j]
                    total, area = 0.0, (spans[r, i, 1] - spans[r, i, 0]) * (spans[r, j, 3] - spans[r, j, 2])
                    for h in range(spans[r, i, 0], spans[r, i, 1]):
                        for w in range(spans[r, j, 2], spans[r, j, 3]):
                            total += plane[h, w]
                    y[r, c, i, j] = total / area if area > 0 else 0.0


@kernel
def _backward(c0, c1, thread, dy, images, spans, dx):
    """Adds the gradients of output channels [c0, c1) to their input channels, which are zero."""
    group = dy.shape[2]
    for r in range(dy.shape[0]):
        for c in range(c0, c1):
            for i in range(group):
                for j in range(group):
                    plane = dx[images[r], (c * group + i) * group + j]
                    area = (spans[r, i, 1] - spans[r, i, 0]) * (spans[r, j, 3] - spans[r, j, 2])
                    for h in range(spans[r, i, 0], spans[r, i, 1]):
                        for w in range(spans[r, j, 2], spans[r, j, 3]):
                            plane[h, w] += dy[r, c, i, j] / area


@final
class PSROIPooling(Layer):
    TYPE: ClassVar[str] = "PSROIPooling"
    KIND: ClassVar[str] = "pooling"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    INDEX_BOTTOMS: ClassVar[tuple[int, ...]] = (1,)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.psroi_pooling_param
        for name in ("spatial_scale", "output_dim", "group_size"):
            if getattr(param, name) <= 0:
                raise self.error(f"{name} must be above 0", "psroi_pooling_param", name)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, x = self.param.psroi_pooling_param, bottom[0]
        if x.num_axes != 4 or 0 in x.shape[2:]:
            raise self.shape_error(f'regions are of images (N, C, H, W): "{x.name}" has shape {x.shape}')
        wanted = param.output_dim * param.group_size**2
        if x.channels != wanted:
            raise self.shape_error(
                f"output_dim * group_size^2 channels are needed: {param.output_dim} * {param.group_size}^2 = {wanted}, "
                f'"{x.name}" has shape {x.shape}'
            )
        top[0].reshape(region_count(self, bottom[1]), param.output_dim, param.group_size, param.group_size)
        self.spans = np.zeros((top[0].shape[0], param.group_size, 4), np.int64)
        self.images = np.zeros(top[0].shape[0], np.int64)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, x, y = self.param.psroi_pooling_param, bottom[0].data, top[0].data
        regions = bottom[1].data.reshape(-1, 5)
        check_regions(self, regions, len(x))
        self.images[:] = regions[:, 0]
        scale = float(param.spatial_scale)
        _spans(regions.astype(np.float64), scale, int(param.group_size), x.shape[2], x.shape[3], self.spans)
        spread(_forward, len(y), y[:1].size * 8, x, self.images, self.spans, y)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            dx, dy = bottom[0].diff, top[0].diff
            dx[...] = 0
            spread(_backward, dy.shape[1], dy.size * 8 // max(1, dy.shape[1]), dy, self.images, self.spans, dx)
