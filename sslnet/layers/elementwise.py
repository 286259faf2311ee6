"""Elementwise: the base of layers that map each value independently, y = f(x).

A subclass defines two kernels over flat ranges, the formula and its gradient, and the constants that they take.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.runtime.memory import aligned_empty
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox, bent_at_zero, mapped
from sslnet.layers.channelwise import ChannelWise

Kernel = Callable[..., None]


@kernel
def copy(i0, i1, thread, x, y):
    x, y = x[i0:i1], y[i0:i1]
    for i in range(x.size):
        y[i] = x[i]


class Elementwise(ChannelWise, ABC):
    """Base of element-wise layers: any shape, in place or not. In place, x is saved if the gradient reads it."""

    KIND: ClassVar[str] = "activation"
    IN_PLACE: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]]
    """The kernels forward(i0, i1, thread, x, y, *constants) and gradient(i0, i1, thread, x, y, dy, dx, *constants).

    In place, y or dx is None and the kernel writes to x or dy: the compiler would assume that one array under two names
    may overlap, and would not vectorise the loop.
    """

    def constants(self) -> tuple[float, ...]:
        """The constants of both kernels, from the layer's parameters; raises DefinitionError."""
        return ()

    def reads_input(self) -> bool:
        """Whether the gradient reads x; False where y suffices, so that in place needs no copy."""
        return True

    def reads_top(self, in_place: bool) -> bool:
        return not self.reads_input()

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._constants = tuple(self.dtype.type(number) for number in self.constants())
        self._input = np.empty(0, self.dtype)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape_like(bottom[0])
        self._keeps = top[0] is bottom[0] and self.reads_input() and self.context.backward
        if self._keeps and self._input.size != top[0].count:
            self._input = aligned_empty(top[0].count, self.dtype)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(-1), top[0].data.reshape(-1)
        in_place = top[0] is bottom[0]
        if self._keeps:
            spread(copy, y.size, 1, y, self._input)
        spread(self.KERNELS[0], y.size, 1, x, None if in_place else y, *self._constants)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return self.reads_input() and not in_place

    MONOTONE: ClassVar[bool] = False
    """Whether f rises everywhere, or falls everywhere: its values at the ends of an interval then bound it."""
    BENT: ClassVar[bool] = False
    """Whether f(0) is 0, and f rises or falls everywhere on each side of it."""
    ULPS: ClassVar[int] = 4
    """Units in the last place by which the kernel's values may break that order; 0 where it computes no function such as exp."""

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if not (self.MONOTONE or self.BENT):
            return super().bounds(bottom, top)

        def run(x: np.ndarray) -> np.ndarray:
            y = np.empty_like(x)
            self.KERNELS[0](0, x.size, 0, np.ascontiguousarray(x), y, *self._constants)
            return y

        rule = bent_at_zero if self.BENT else mapped
        return [rule(bottom[0], self.dtype, run, steps=self.ULPS)]

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        y, dy = top[0].data.reshape(-1), top[0].diff.reshape(-1)
        dx = bottom[0].diff.reshape(-1)
        x = y  # where y suffices for the gradient, a kernel that reads the sign of x gets that of y
        if self.reads_input():
            x = self._input if top[0] is bottom[0] else bottom[0].data.reshape(-1)
        in_place = dx.ctypes.data == dy.ctypes.data
        spread(self.KERNELS[1], y.size, 1, x, y, dy, None if in_place else dx, *self._constants)
