"""RNN: the simple recurrent net. Bottoms, tops and first blobs as in ``recurrent``, then W_o (H, H) and b_o (H).

h_t = tanh(a_t)      y_t = tanh(W_o h_t + b_o)
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import spread
from sslnet.layers.base import Blobs
from sslnet.layers.recurrent import Recurrent
from sslnet.layers.tanh import TanH

_TANH, _TANH_GRADIENT = TanH.KERNELS


@final
class RNN(Recurrent):
    TYPE: ClassVar[str] = "RNN"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 4)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)
    GATES: ClassVar[int] = 1
    STATES: ClassVar[int] = 1

    def setup_output(self) -> None:
        self.new_param((self.size, self.size), "recurrent_param", "weight_filler")
        self.new_param((self.size,), "recurrent_param", "bias_filler")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        super().reshape(bottom, top)
        self._output = np.zeros(top[0].shape, self.dtype)

    def step(self, t: int, cont: np.ndarray) -> None:
        x, y = self.gates[t].reshape(-1), self.states[0, t + 1].reshape(-1)
        spread(_TANH, y.size, 1, x, y)

    def step_backward(self, t: int, cont: np.ndarray, dstate: np.ndarray) -> None:
        y, dy, dx = (array.reshape(-1) for array in (self.states[0, t + 1], dstate[0], self.dgates[t]))
        spread(_TANH_GRADIENT, y.size, 1, y, y, dy, dx)

    def output(self, y: np.ndarray) -> None:
        weights, bias = (blob.data for blob in self.blobs[-2:])
        np.matmul(self._hidden, weights.T, out=self._output.reshape(len(self._hidden), -1))
        self._output += bias
        spread(_TANH, y.size, 1, self._output.reshape(-1), y.reshape(-1))
        self._output[...] = y

    def output_backward(self, dy: np.ndarray) -> np.ndarray:
        weights, bias = self.blobs[-2:]
        da = (dy * (1 - self._output**2)).reshape(len(self._hidden), -1)
        if self.param_propagate_down[-2]:
            dweights = weights.diff
            dweights += da.T @ self._hidden
        if self.param_propagate_down[-1]:
            dbias = bias.diff
            dbias += da.sum(axis=0)
        dh: np.ndarray = (da @ weights.data).reshape(dy.shape)
        return dh

    @property
    def _hidden(self) -> np.ndarray:
        """All hidden states, (T N, H)."""
        return self.states[0, 1:].reshape(-1, self.size)
