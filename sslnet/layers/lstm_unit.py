"""LSTMUnit: one time step of an LSTM, from the inputs of its gates.

    i, f, o = sigmoid(a)      g = tanh(a)      c = cont f c_prev + i g      h = o tanh(c)

bottoms  c_prev (1, N, H), a (1, N, 4 H) with the gates in the order i, f, o, g, cont (1, N), 0 where a sequence begins
tops     c, h (1, N, H)

Ref: Caffe's layer, from which its LSTM is built
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import spread
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.lstm import lstm_step, lstm_step_backward


@final
class LSTMUnit(Layer):
    TYPE: ClassVar[str] = "LSTMUnit"
    KIND: ClassVar[str] = "connected"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (3, 3)
    TOPS: ClassVar[tuple[int, int | None]] = (2, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        before, inputs, cont = bottom
        if before.num_axes != 3 or before.shape[0] != 1 or inputs.shape != (*before.shape[:2], 4 * before.shape[2]):
            message = f"c_prev is (1, N, H) and a is (1, N, 4 H): {before.shape} and {inputs.shape}"
            raise self.shape_error(message)
        if cont.count != before.shape[1]:
            raise self.shape_error(f"cont must have one number a sequence: {cont.shape} and {before.shape}")
        for blob in top:
            blob.reshape_like(before)
        self.size: int = before.shape[2]
        self._gates, self._dgates = np.zeros((2, *inputs.shape[1:]), self.dtype)
        self._cont = np.zeros(before.shape[1], self.dtype)
        self._dcell = np.zeros(before.shape[1:], self.dtype)

    def allow_force_backward(self, index: int) -> bool:
        return index < 2

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self._gates[...] = bottom[1].data[0]
        self._cont[...] = bottom[2].data.reshape(-1)
        arrays = (self._gates, self._cont, bottom[0].data[0], top[0].data[0], top[1].data[0])
        spread(lstm_step, len(self._cont), 32 * self.size, *arrays)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index == 0

    def reads_top(self, in_place: bool) -> bool:
        return True

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[2]:
            raise self.run_error("LSTMUnit has no gradient for cont")
        self._dcell[...] = top[0].diff[0]
        before, cell = bottom[0].data[0], top[0].data[0]
        arrays = (self._gates, self._cont, before, cell, top[1].diff[0], self._dcell, self._dgates)
        spread(lstm_step_backward, len(self._cont), 32 * self.size, *arrays)
        for index, diff in enumerate((self._dcell, self._dgates)):
            if propagate_down[index]:
                bottom[index].diff[0] = diff

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 8 * top[0].count
