"""ROIAlign: means of bilinear values of each channel in pooled_h x pooled_w windows of each region (Mask R-CNN).

A region x1, y1, x2, y2 is scaled, not rounded, and at least 1 pixel wide and high. Each window has n x n sample points at
the centres of its n x n parts, n = sampling_ratio, or the size of a window in pixels, rounded up. The value at a point is
bilinear between the four pixels around it, pixels at whole coordinates; up to one pixel outside the image that of its border,
0 beyond.

bottom  x (N, C, H, W), regions (R, 5) of image index, x1, y1, x2, y2 in pixels of the image
top     (R, C, pooled_h, pooled_w)

Ref: He, Gkioxari, Dollar, Girshick 2017, Mask R-CNN
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.onnx import OnnxGraph
from sslnet.layers.regions import RegionPooling, check_regions, region_count

MOST_SAMPLES = 64
"""Largest sampling_ratio, and limit of the points of a window along a side where it is 0."""


@kernel
def _around(place, size):
    """The two pixels around a place of an axis and the weight of the second; weight -1: outside."""
    if place < -1.0 or place > size:
        return 0, 0, -1.0
    place = max(place, 0.0)
    low = np.int64(place)
    if low >= size - 1:
        return size - 1, size - 1, 0.0
    return low, low + 1, place - low


@kernel
def _samples(length, pooled, ratio):
    """Number of sample points of a window along an axis."""
    return ratio if ratio > 0 else min(max(np.int64(np.ceil(length / pooled)), 1), 64)


@kernel
def _forward(r0, r1, thread, x, regions, scale, ratio, y):
    """The means of regions [r0, r1)."""
    rows, columns = y.shape[2], y.shape[3]
    for r in range(r0, r1):
        image = np.int64(regions[r, 0])
        left, top = regions[r, 1] * scale, regions[r, 2] * scale
        wide, high = max(regions[r, 3] * scale - left, 1.0), max(regions[r, 4] * scale - top, 1.0)
        ny, nx = _samples(high, rows, ratio), _samples(wide, columns, ratio)
        for i in range(rows):
            for j in range(columns):
                y[r, :, i, j] = 0
                for a in range(ny):
                    h0, h1, dh = _around(top + (i + (a + 0.5) / ny) * high / rows, x.shape[2])
                    for b in range(nx):
                        w0, w1, dw = _around(left + (j + (b + 0.5) / nx) * wide / columns, x.shape[3])
                        if dh < 0 or dw < 0:
                            continue
                        for c in range(x.shape[1]):
                            upper = x[image, c, h0, w0] * (1 - dw) + x[image, c, h0, w1] * dw
                            lower = x[image, c, h1, w0] * (1 - dw) + x[image, c, h1, w1] * dw
                            y[r, c, i, j] += (upper * (1 - dh) + lower * dh) / (ny * nx)


@kernel
def _backward(c0, c1, thread, dy, regions, scale, ratio, dx):
    """Adds the gradients of all regions to channels [c0, c1), which are zero."""
    rows, columns = dy.shape[2], dy.shape[3]
    for r in range(len(regions)):
        image = np.int64(regions[r, 0])
        left, top = regions[r, 1] * scale, regions[r, 2] * scale
        wide, high = max(regions[r, 3] * scale - left, 1.0), max(regions[r, 4] * scale - top, 1.0)
        ny, nx = _samples(high, rows, ratio), _samples(wide, columns, ratio)
        for i in range(rows):
            for j in range(columns):
                for a in range(ny):
                    h0, h1, dh = _around(top + (i + (a + 0.5) / ny) * high / rows, dx.shape[2])
                    for b in range(nx):
                        w0, w1, dw = _around(left + (j + (b + 0.5) / nx) * wide / columns, dx.shape[3])
                        if dh < 0 or dw < 0:
                            continue
                        for c in range(c0, c1):
                            part = dy[r, c, i, j] / (ny * nx)
                            dx[image, c, h0, w0] += part * (1 - dh) * (1 - dw)
                            dx[image, c, h0, w1] += part * (1 - dh) * dw
                            dx[image, c, h1, w0] += part * dh * (1 - dw)
                            dx[image, c, h1, w1] += part * dh * dw


@final
class ROIAlign(RegionPooling):
    TYPE: ClassVar[str] = "ROIAlign"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.roi_align_param
        self.size = self.pooled_size(param, "roi_align_param")
        self.scale = float(param.spatial_scale)
        if not -1 <= param.sampling_ratio <= MOST_SAMPLES:
            raise self.error(f"sampling_ratio must be at most {MOST_SAMPLES}", "roi_align_param", "sampling_ratio")
        self.ratio = max(0, int(param.sampling_ratio))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.check_features(bottom)
        top[0].reshape(region_count(self, bottom[1]), bottom[0].channels, *self.size)

    def _regions(self, bottom: Blobs) -> np.ndarray:
        return np.asarray(bottom[1].data.reshape(-1, 5).astype(np.float64))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        regions, y = self._regions(bottom), top[0].data
        check_regions(self, regions, bottom[0].num)
        spread(_forward, len(y), y[:1].size * 16, bottom[0].data, regions, self.scale, self.ratio, y)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index == 1

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            dx, dy = bottom[0].diff, top[0].diff
            dx[...] = 0
            cost = 16 * top[0].count // max(1, dx.shape[1])
            spread(_backward, dx.shape[1], cost, dy, self._regions(bottom), self.scale, self.ratio, dx)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        graph.fix_batch(self)
        table = graph.node("Reshape", [inputs[1], graph.integers([-1, 5])])
        image, corners = (
            graph.node("Slice", [table, *(graph.integers([n]) for n in (begin, end, 1))])
            for begin, end in ((0, 1), (1, 5))
        )
        images = graph.node("Cast", [graph.node("Reshape", [image, graph.integers([-1])])], to=7)
        rows, columns = self.size
        options: dict[str, Any] = {"output_height": rows, "output_width": columns, "spatial_scale": self.scale}
        options |= {"sampling_ratio": self.ratio, "mode": "avg", "coordinate_transformation_mode": "output_half_pixel"}
        return [graph.node("RoiAlign", [inputs[0], corners, images], **options)]
