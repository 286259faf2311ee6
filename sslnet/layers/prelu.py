"""PReLU: y = x where x > 0, slope x elsewhere, with a learned slope a channel (axis 1) or one for all; in place or not.

dx = dy where x > 0, dy slope elsewhere; dslope = sum of dy x where x <= 0.

Ref: He et al. 2015, "Delving deep into rectifiers"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.jit import kernel, spread
from sslnet.kernels.memory import aligned_empty
from sslnet.layers.base import Blobs
from sslnet.layers.channelwise import ChannelWise


@kernel
def _forward(r0, r1, thread, x, y, slopes):
    """For the rows [r0, r1) of (N * C, values)."""
    zero = x.dtype.type(0)
    c = r0 % slopes.size
    for r in range(r0, r1):
        xr, yr, slope = x[r], y[r], slopes[c]
        for q in range(xr.size):
            v = xr[q]
            yr[q] = v if v > zero else slope * v
        c = c + 1 if c + 1 < slopes.size else 0


@kernel
def _gradient(r0, r1, thread, x, dy, dx, slopes):
    """dx may be dy."""
    zero = x.dtype.type(0)
    above = np.empty(x.shape[1], x.dtype)
    c = r0 % slopes.size
    if x.shape[1] == 1:
        # For rows of one value the copy would cost more than the work.
        for r in range(r0, r1):
            dx[r, 0] = dy[r, 0] if x[r, 0] > zero else slopes[c] * dy[r, 0]
            c = c + 1 if c + 1 < slopes.size else 0
        return
    for r in range(r0, r1):
        xr, dr, slope = x[r], dx[r], slopes[c]
        above[:] = dy[r]
        for q in range(xr.size):
            dr[q] = above[q] if xr[q] > zero else slope * above[q]
        c = c + 1 if c + 1 < slopes.size else 0


@kernel
def _slope_gradient(c0, c1, thread, x, dy, total):
    """total = sum of dy x where x <= 0, for the channels [c0, c1) of (N, C, values)."""
    zero = x.dtype.type(0)
    for c in range(c0, c1):
        t = 0.0
        for n in range(x.shape[0]):
            xc, dc, row = x[n, c], dy[n, c], zero
            for q in range(xc.size):
                row += dc[q] * xc[q] if xc[q] <= zero else zero
            t += row
        total[c] = t


@final
class PReLU(ChannelWise):
    TYPE: ClassVar[str] = "PReLU"
    IN_PLACE: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.prelu_param
        if bottom[0].num_axes < 2:
            raise self.shape_error(f'PReLU needs a channel axis: "{bottom[0].name}" has shape {bottom[0].shape}')
        self.shared: bool = param.channel_shared
        self.new_param(() if self.shared else (bottom[0].shape[1],), "prelu_param", "filler", default=0.25)
        self._input = np.empty(0, self.dtype)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, slopes = bottom[0], self.blobs[0]
        if not self.shared and x.shape[1:2] != slopes.shape:
            raise self.shape_error(f'the slopes are of {slopes.count} channels: "{x.name}" has shape {x.shape}')
        top[0].reshape_like(x)
        self.fold = (x.shape[0], x.shape[1], x.count_of(2))
        self.rows = (x.count_of(0, 2), x.count_of(2))
        self._total = np.zeros(x.shape[1])
        if top[0] is x and self._input.size != x.count:
            self._input = aligned_empty(x.count, self.dtype)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(self.rows), top[0].data.reshape(self.rows)
        if top[0] is bottom[0]:
            self._input[:] = x.reshape(-1)
            x = self._input.reshape(self.rows)
        spread(_forward, *self.rows, x, y, self.blobs[0].data.reshape(-1))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return not in_place

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        x, dy = self._input if top[0] is bottom[0] else bottom[0].data, top[0].diff
        if self.param_propagate_down[0]:
            cost = self.fold[0] * self.fold[2]
            spread(_slope_gradient, self.fold[1], cost, x.reshape(self.fold), dy.reshape(self.fold), self._total)
            slopes = self.blobs[0].diff
            slopes += self._total.sum() if self.shared else self._total
        if propagate_down[0]:
            arrays = (x.reshape(self.rows), dy.reshape(self.rows), bottom[0].diff.reshape(self.rows))
            spread(_gradient, *self.rows, *arrays, self.blobs[0].data.reshape(-1))

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        return param, blobs if self.shared else [blobs[0][bottom_keep[0]]]
