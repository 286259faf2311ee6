"""FlowWarp: an image moved by a flow (FlowNet 2): each place takes the value at itself plus the flow, bilinear.

    y[n, c, i, j] = x[n, c] at column j + u, row i + v; outside the image 0, or NaN (fill_value: NOT_A_NUMBER)

bottoms  x (N, C, H, W), flow (N, 2, H, W): u (columns), then v (rows), in pixels
top      (N, C, H, W)

The gradient of the flow is that of the bilinear value, 0 outside the image.

Ref: Ilg et al. 2017, "FlowNet 2.0: evolution of optical flow estimation with deep networks"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs, BoolVector, Layer


class _Corners(NamedTuple):
    """For each place, rows and columns of the pixels around its source, their distances, and whether it is inside."""

    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray
    down: np.ndarray
    across: np.ndarray
    inside: np.ndarray


@final
class FlowWarp(Layer):
    TYPE: ClassVar[str] = "FlowWarp"
    KIND: ClassVar[str] = "pooling"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, flow = bottom
        if x.num_axes != 4 or flow.shape != (x.shape[0], 2, *x.shape[2:]):
            raise self.shape_error(f"x is (N, C, H, W) and flow (N, 2, H, W): {x.shape} and {flow.shape}")
        top[0].reshape_like(x)

    def _corners(self, flow: np.ndarray) -> _Corners:
        height, width = flow.shape[1:]
        columns = np.arange(width, dtype=self.dtype) + flow[0]
        rows = np.arange(height, dtype=self.dtype)[:, None] + flow[1]
        inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
        columns, rows = np.where(inside, columns, 0), np.where(inside, rows, 0)
        left, top = columns.astype(np.int64), rows.astype(np.int64)
        right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
        return _Corners(top, bottom, left, right, rows - top, columns - left, inside)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        nan = self.param.flow_warp_param.fill_value == pb.FlowWarpParameter.NOT_A_NUMBER
        for x, flow, y in zip(bottom[0].data, bottom[1].data, top[0].data):
            at = self._corners(flow)
            upper = x[:, at.top, at.left] * (1 - at.across) + x[:, at.top, at.right] * at.across
            lower = x[:, at.bottom, at.left] * (1 - at.across) + x[:, at.bottom, at.right] * at.across
            y[...] = np.where(at.inside, upper * (1 - at.down) + lower * at.down, np.nan if nan else 0)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            bottom[0].diff[...] = 0
        for n, (x, flow, dy) in enumerate(zip(bottom[0].data, bottom[1].data, top[0].diff)):
            at = self._corners(flow)
            dy = np.where(at.inside, dy, 0)
            if propagate_down[0]:
                dx = bottom[0].diff[n]
                for rows, down in ((at.top, 1 - at.down), (at.bottom, at.down)):
                    for columns, across in ((at.left, 1 - at.across), (at.right, at.across)):
                        places: Any = (slice(None), rows, columns)
                        np.add.at(dx, places, dy * (down * across))
            if propagate_down[1]:
                upper = x[:, at.top, at.right] - x[:, at.top, at.left]
                lower = x[:, at.bottom, at.right] - x[:, at.bottom, at.left]
                bottom[1].diff[n, 0] = (dy * (upper * (1 - at.down) + lower * at.down)).sum(axis=0)
                before = x[:, at.bottom, at.left] - x[:, at.top, at.left]
                behind = x[:, at.bottom, at.right] - x[:, at.top, at.right]
                bottom[1].diff[n, 1] = (dy * (before * (1 - at.across) + behind * at.across)).sum(axis=0)

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 8 * top[0].count

    # -- compaction: x and top keep the same channels; both of the flow are kept ----------------------------------------

    CHANNELS: ClassVar[str] = "removed in the first bottom and the top together; both of the flow are kept"
    SHRINKS: ClassVar[bool] = True

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.array(top[0]), np.ones_like(bottom_constant[1])]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0]]
