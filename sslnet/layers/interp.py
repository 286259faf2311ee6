"""Interp: resizes images, bilinear with aligned corner pixels, or by nearest neighbour.

The output is height x width if both are given; else each size n is reduced by ``shrink_factor`` to
(n - 1) // factor + 1, then enlarged by ``zoom_factor`` to n + (n - 1) (factor - 1).
A negative ``pad_beg`` / ``pad_end`` crops the bottom's edges first. A second bottom (``use_blob_size``) gives height and
width of the output.

    y[i] = (1 - f) x[p] + f x[p + 1], p + f = i (in - 1) / (out - 1), along each of the two axes

Ref: Chen et al. 2015, DeepLab; Zhao et al. 2017, PSPNet (which use this layer)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph, cut


@kernel
def _forward(p0, p1, thread, x, y, row, down, column, right):
    """Resizes the planes [p0, p1). row, column (out): first of two pixels; down, right (out): weight of the second."""
    for p in range(p0, p1):
        for h in range(y.shape[1]):
            out, f = y[p, h], down[h]
            above, below = x[p, row[h]], x[p, min(row[h] + 1, x.shape[1] - 1)]
            for w in range(out.size):
                a, b, g = column[w], min(column[w] + 1, x.shape[2] - 1), right[w]
                first = above[a] + g * (above[b] - above[a])
                second = below[a] + g * (below[b] - below[a])
                out[w] = first + f * (second - first)


@kernel
def _gradient(p0, p1, thread, dx, dy, row, down, column, right):
    """Accumulates each output pixel's diff into the bottom pixels that it was read from, for the planes [p0, p1)."""
    one = dx.dtype.type(1)
    for p in range(p0, p1):
        for h in range(dy.shape[1]):
            d, f = dy[p, h], down[h]
            above, below = dx[p, row[h]], dx[p, min(row[h] + 1, dx.shape[1] - 1)]
            for w in range(d.size):
                a, b, g = column[w], min(column[w] + 1, dx.shape[2] - 1), right[w]
                above[a] += (one - f) * (one - g) * d[w]
                above[b] += (one - f) * g * d[w]
                below[a] += f * (one - g) * d[w]
                below[b] += f * g * d[w]


@final
class Interp(ChannelWise):
    TYPE: ClassVar[str] = "Interp"
    KIND: ClassVar[str] = "pooling"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.interp_param
        for name in ("zoom_factor", "shrink_factor"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1, not {getattr(param, name)}", "interp_param", name)
        for name in ("pad_beg", "pad_end"):
            if getattr(param, name) > 0:
                raise self.error(f"{name} can only crop: 0 or below, not {getattr(param, name)}", "interp_param", name)
        if param.interp_type not in ("bilinear", "nearest_neighbor"):
            raise self.error(
                f'interp_type is bilinear or nearest_neighbor, not "{param.interp_type}"', "interp_param", "interp_type"
            )
        if param.use_blob_size != (len(bottom) == 2):
            raise self.error("use_blob_size takes the size of a second bottom: both are needed", "interp_param")
        sizes = (param.height, param.width)
        if sizes != (0, 0) and min(sizes) < 1:
            raise self.error(f"height and width go together: {param.height} and {param.width}", "interp_param")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, x = self.param.interp_param, bottom[0]
        if x.num_axes != 4:
            raise self.shape_error(f'Interp needs a bottom of 4 axes (N, C, H, W): "{x.name}" has shape {x.shape}')
        first, last = -param.pad_beg, -param.pad_end
        inside = [size - first - last for size in x.shape[2:]]
        if min(inside) < 1:
            raise self.shape_error(f"pad_beg and pad_end leave nothing of {x.shape[2:]}", "interp_param")
        given: tuple[int, ...] = (param.height, param.width)
        if len(bottom) == 2:
            if bottom[1].num_axes != 4 or min(bottom[1].shape[2:]) < 1:
                raise self.shape_error(f'"{bottom[1].name}" must be images of some size: {bottom[1].shape}')
            given = bottom[1].shape[2:]
        out = [self._extent(size, wanted) for size, wanted in zip(inside, given)]
        top[0].reshape(*x.shape[:2], *out)
        self.planes, self.out_planes = (x.count_of(0, 2), *x.shape[2:]), (x.count_of(0, 2), *out)
        nearest = param.interp_type == "nearest_neighbor"
        (row, down), (column, right) = (self._places(n, m, first, nearest) for n, m in zip(inside, out))
        self._table = (row, down, column, right)

    def _extent(self, size: int, given: int) -> int:
        param = self.param.interp_param
        if given:
            return given
        shrink: int = param.shrink_factor
        zoom: int = param.zoom_factor
        size = (size - 1) // shrink + 1
        return size + (size - 1) * (zoom - 1)

    def _places(self, size: int, out: int, first: int, nearest: bool) -> tuple[np.ndarray, np.ndarray]:
        """For each output position, the bottom pixel before it and its distance from that pixel (0 to 1)."""
        place = np.arange(out) * ((size - 1) / (out - 1) if out > 1 else 0.0)
        if nearest:
            place = np.floor(place + 0.5)
        whole = np.minimum(np.floor(place).astype(np.int64), size - 1)
        return whole + first, (place - whole).astype(self.dtype)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [bottom[0].rounded(self.dtype, 16)]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self.planes), top[0].data.reshape(self.out_planes)
        spread(_forward, len(y), y[0].size if y.size else 0, x, y, *self._table)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            dx, dy = bottom[0].diff.reshape(self.planes), top[0].diff.reshape(self.out_planes)
            dx[...] = 0
            spread(_gradient, len(dy), dy[0].size if dy.size else 0, dx, dy, *self._table)
        if any(propagate_down[1:]):
            bottom[1].diff[...] = 0

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    CHANNELS: ClassVar[str] = "removed in bottom and top together; all of a second bottom are kept"

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.array(top[0]), *map(np.ones_like, bottom_constant[1:])]

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 6 * top[0].count

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param, x = self.param.interp_param, bottom[0]
        if param.interp_type != "bilinear":
            raise self.not_in_onnx(f"Interp with interp_type {param.interp_type}")
        inside = [(axis, -param.pad_beg, x.shape[axis] + param.pad_end) for axis in (2, 3)]
        value = cut(graph, self, inputs[0], x, inside)
        options: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "align_corners", "axes": [2, 3]}
        return [graph.node("Resize", [value, "", "", graph.integers(top[0].shape[2:])], **options)]
