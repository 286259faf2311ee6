"""ROIPooling: the largest value of each channel in pooled_h x pooled_w windows of each region.

A region x1, y1, x2, y2, scaled and rounded (halves away from zero), is w = max(x2 - x1 + 1, 1) pixels wide; window j of n
covers the columns floor(j (w / n)) .. ceil((j + 1) (w / n)) - 1 from x1 on, within the image, in the precision of the net
as in Caffe. A window without pixels gives 0.
The gradient goes to the pixel with the largest value, the first one in row-major order.

bottom  x (N, C, H, W), regions (R, 5) of image index, x1, y1, x2, y2 in pixels of the image
top     (R, C, pooled_h, pooled_w)

Ref: Girshick 2015, Fast R-CNN
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.onnx import OnnxGraph
from sslnet.layers.regions import RegionPooling, check_regions, region_count


@kernel
def _rounded(value):
    """The nearest whole number, halves away from zero."""
    return np.int64(np.floor(value + 0.5)) if value >= 0 else -np.int64(np.floor(0.5 - value))


@kernel
def _forward(r0, r1, thread, x, regions, scale, y, places):
    """The maxima of regions [r0, r1) and their places in the plane, -1 for none."""
    height, width = x.shape[2], x.shape[3]
    rows, columns = y.shape[2], y.shape[3]
    zero = x.dtype.type(0)
    for r in range(r0, r1):
        image = np.int64(regions[r, 0])
        left, top = _rounded(regions[r, 1] * scale), _rounded(regions[r, 2] * scale)
        wide = max(_rounded(regions[r, 3] * scale) - left + 1, 1)
        high = max(_rounded(regions[r, 4] * scale) - top + 1, 1)
        tall, broad = x.dtype.type(high) / x.dtype.type(rows), x.dtype.type(wide) / x.dtype.type(columns)
        for c in range(x.shape[1]):
            plane = x[image, c]
            for i in range(rows):
                h0 = min(max(np.int64(np.floor(x.dtype.type(i) * tall)) + top, 0), height)
                h1 = min(max(np.int64(np.ceil(x.dtype.type(i + 1) * tall)) + top, 0), height)
                for j in range(columns):
                    w0 = min(max(np.int64(np.floor(x.dtype.type(j) * broad)) + left, 0), width)
                    w1 = min(max(np.int64(np.ceil(x.dtype.type(j + 1) * broad)) + left, 0), width)
                    best, place = zero, -1
                    for h in range(h0, h1):
                        for w in range(w0, w1):
                            if place < 0 or plane[h, w] > best:
                                best, place = plane[h, w], h * width + w
                    y[r, c, i, j] = best
                    places[r, c, i, j] = place


@kernel
def _backward(c0, c1, thread, dy, places, images, dx):
    """Adds the gradients of all regions to the planes of channels [c0, c1), which are zero."""
    for r in range(dy.shape[0]):
        for c in range(c0, c1):
            plane = dx[images[r], c].reshape(-1)
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    if places[r, c, i, j] >= 0:
                        plane[places[r, c, i, j]] += dy[r, c, i, j]


@final
class ROIPooling(RegionPooling):
    TYPE: ClassVar[str] = "ROIPooling"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.size = self.pooled_size(self.param.roi_pooling_param, "roi_pooling_param")
        self.scale = self.dtype.type(self.param.roi_pooling_param.spatial_scale)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.check_features(bottom)
        top[0].reshape(region_count(self, bottom[1]), bottom[0].channels, *self.size)
        self.places = np.zeros(top[0].shape, np.int64)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        regions = bottom[1].data.reshape(-1, 5)
        check_regions(self, regions, bottom[0].num)
        y = top[0].data
        spread(_forward, len(y), y[:1].size * 8, bottom[0].data, regions, self.scale, y, self.places)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index == 1

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            dx = bottom[0].diff
            dx[...] = 0
            images = bottom[1].data.reshape(-1, 5)[:, 0].astype(np.int64)
            spread(_backward, dx.shape[1], top[0].count // max(1, dx.shape[1]), top[0].diff, self.places, images, dx)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        regions = inputs[1]
        if bottom[1].num_axes > 2:
            regions = graph.node("Reshape", [regions, graph.integers([-1, 5])])
        graph.fix_batch(self)
        size, scale = list(self.size), float(self.scale)
        return [graph.node("MaxRoiPool", [inputs[0], regions], pooled_shape=size, spatial_scale=scale)]
