"""ReLU: y = x where x > 0, negative_slope * x elsewhere; any shape, in place or not.

dx = dy where x > 0, negative_slope * dy elsewhere. In place x is gone, and y > 0 says the same (for slopes of 0 or more).

Ref: Nair, Hinton 2010; leaky: Maas, Hannun, Ng 2013
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet.kernels.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.channelwise import ChannelWise


@kernel
def _forward(i0, i1, thread, x, y, slope):
    x, y = x[i0:i1], y[i0:i1]
    for i in range(x.size):
        v = x[i]
        y[i] = v if v > 0 else slope * v


@kernel
def _forward_in_place(i0, i1, thread, y, slope):
    y = y[i0:i1]
    for i in range(y.size):
        v = y[i]
        y[i] = v if v > 0 else slope * v


@kernel
def _backward(i0, i1, thread, x, dy, dx, slope):
    x, dy, dx = x[i0:i1], dy[i0:i1], dx[i0:i1]
    for i in range(x.size):
        g = dy[i]
        dx[i] = g if x[i] > 0 else slope * g


@kernel
def _backward_in_place(i0, i1, thread, y, d, slope):
    y, d = y[i0:i1], d[i0:i1]
    for i in range(y.size):
        g = d[i]
        d[i] = g if y[i] > 0 else slope * g


@final
class ReLU(ChannelWise):
    TYPE: ClassVar[str] = "ReLU"
    IN_PLACE: ClassVar[bool] = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if top[0] is not bottom[0]:
            top[0].reshape_like(bottom[0])
        self.slope = self.dtype.type(self.param.relu_param.negative_slope)

    def reads_top(self, in_place: bool) -> bool:
        return in_place

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        y = top[0].data.reshape(-1)
        if top[0] is bottom[0]:
            spread(_forward_in_place, y.size, 1, y, self.slope)
        else:
            spread(_forward, y.size, 1, bottom[0].data.reshape(-1), y, self.slope)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return not in_place

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        x, dx = bottom[0].data.reshape(-1), bottom[0].diff.reshape(-1)
        if top[0] is bottom[0]:
            spread(_backward_in_place, x.size, 1, x, dx, self.slope)
        else:
            spread(_backward, x.size, 1, x, top[0].diff.reshape(-1), dx, self.slope)
