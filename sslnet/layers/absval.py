"""AbsVal: y = |x|; any shape, in place or not.  dx = dy sign(x), 0 where x is 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox, bent_at_zero
from sslnet.layers.elementwise import Elementwise, Kernel
from sslnet.layers.onnx import OnnxOperator


@kernel
def _forward(i0, i1, thread, x, y):
    x = x[i0:i1]
    y = x if y is None else y[i0:i1]
    for i in range(x.size):
        y[i] = abs(x[i])


@kernel
def _gradient(i0, i1, thread, x, y, dy, dx):
    zero = x.dtype.type(0)
    x, dy = x[i0:i1], dy[i0:i1]
    dx = dy if dx is None else dx[i0:i1]
    for i in range(x.size):
        dx[i] = dy[i] if x[i] > zero else (-dy[i] if x[i] < zero else zero)


@final
class AbsVal(Elementwise):
    TYPE: ClassVar[str] = "AbsVal"
    ONNX: ClassVar[tuple[OnnxOperator, ...]] = (OnnxOperator("Abs"),)
    KERNELS: ClassVar[tuple[Kernel, ...]] = (_forward, _gradient)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [bent_at_zero(bottom[0], self.dtype, np.abs)]
