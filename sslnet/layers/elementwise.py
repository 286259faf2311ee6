"""Elementwise: the base of layers that map each value by itself, y = f(x).

A subclass is its formula and its gradient: two kernels over flat ranges, side by side, and the numbers they take.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from sslnet.kernels.jit import spread
from sslnet.kernels.memory import aligned_empty, scratch
from sslnet.layers.base import Blobs
from sslnet.layers.channelwise import ChannelWise

Kernel = Callable[..., None]

BLOCK = 1 << 14
"""Elements of an in-place layer that pass through the copy at a time: they stay in the cache."""


class Elementwise(ChannelWise, ABC):
    """Any shape, in place or not; x keeps its values for the gradient when it is overwritten and the gradient reads it."""

    IN_PLACE: ClassVar[bool] = True
    KERNELS: ClassVar[tuple[Kernel, ...]]
    """forward(i0, i1, thread, x, y, *constants), gradient(i0, i1, thread, x, y, dy, dx, *constants)."""

    def constants(self) -> tuple[float, ...]:
        """The numbers that both kernels take, from the layer's parameters; raises DefinitionError."""
        return ()

    def reads_input(self) -> bool:
        """Whether the gradient reads x; False where it gets by with y, so that in place costs no memory."""
        return True

    def reads_top(self, in_place: bool) -> bool:
        return not self.reads_input()

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._constants = tuple(self.dtype.type(number) for number in self.constants())
        self._input = np.empty(0, self.dtype)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape_like(bottom[0])
        if top[0] is bottom[0] and self.reads_input() and self._input.size != top[0].count:
            self._input = aligned_empty(top[0].count, self.dtype)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0].data.reshape(-1), top[0].data.reshape(-1)
        if top[0] is bottom[0] and self.reads_input():
            self._input[:] = x
            x = self._input
        self._run(self.KERNELS[0], (x,), y)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return self.reads_input() and not in_place

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        y, dy = top[0].data.reshape(-1), top[0].diff.reshape(-1)
        dx = bottom[0].diff.reshape(-1)
        x = y  # where the gradient gets by with y, a kernel that asks for the sign of x takes that of y
        if self.reads_input():
            x = self._input if top[0] is bottom[0] else bottom[0].data.reshape(-1)
        self._run(self.KERNELS[1], (x, y, dy), dx)

    def _run(self, kernel: Kernel, inputs: tuple[np.ndarray, ...], out: np.ndarray) -> None:
        if any(array.ctypes.data == out.ctypes.data for array in inputs):
            spread(_blockwise, out.size, 1, kernel, inputs, out, self._constants)
        else:
            spread(kernel, out.size, 1, *inputs, out, *self._constants)


def _blockwise(
    i0: int,
    i1: int,
    thread: int,
    kernel: Kernel,
    inputs: tuple[np.ndarray, ...],
    out: np.ndarray,
    constants: tuple[float, ...],
) -> None:
    """kernel over [i0, i1) where an input is the output itself: it reads a copy, block by block.

    With both the same, the compiled loop would find that they overlap and go one value at a time, ten times slower.
    """
    copy = scratch("elementwise", BLOCK, out.dtype)
    for first in range(i0, i1, BLOCK):
        block = slice(first, min(first + BLOCK, i1))
        size = block.stop - first
        target = out[block]
        copy[:size] = target
        parts = (copy if array.ctypes.data == out.ctypes.data else array[block] for array in inputs)
        kernel(0, size, thread, *parts, target, *constants)
