"""LSTM: long short-term memory. Bottoms, tops and first blobs as in ``recurrent``; four gates in the order i, f, o, g.

    i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)      g = tanh(a_g)
    c_t = cont_t f c_{t-1} + i g                            y_t = h_t = o tanh(c_t)

Ref: Hochreiter, Schmidhuber 1997; without peepholes, as in Zaremba, Sutskever 2014
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.simd.math import sigmoid, tanh
from sslnet.layers.recurrent import Recurrent

# Several loops over few arrays each: in a single loop over all arrays the compiler could not rule out overlaps.


@kernel
def lstm_step(n0, n1, thread, gates, cont, before, cell, hidden):
    """Replaces gates (N, 4 H) by i, f, o, g and overwrites cell and hidden, for the sequences [n0, n1)."""
    size = cell.shape[1]
    for n in range(n0, n1):
        sigmoids, g = gates[n, : 3 * size], gates[n, 3 * size :]
        for d in range(sigmoids.size):
            sigmoids[d] = sigmoid(sigmoids[d])
        for d in range(g.size):
            g[d] = tanh(g[d])
        i, f, o = sigmoids[:size], sigmoids[size : 2 * size], sigmoids[2 * size :]
        b, c, h, keep = before[n], cell[n], hidden[n], cont[n]
        for d in range(c.size):
            c[d] = keep * f[d] * b[d] + i[d] * g[d]
        for d in range(h.size):
            h[d] = o[d] * tanh(c[d])


@kernel
def lstm_step_backward(n0, n1, thread, gates, cont, before, cell, dhidden, dcell, dgates):
    """Overwrites dgates and replaces dcell, the diff of the cell after the step, by that of the cell before it."""
    size, one = cell.shape[1], cell.dtype.type(1)
    for n in range(n0, n1):
        i, f, o, g = gates[n, :size], gates[n, size : 2 * size], gates[n, 2 * size : 3 * size], gates[n, 3 * size :]
        below = dgates[n]
        di, df, do, dg = below[:size], below[size : 2 * size], below[2 * size : 3 * size], below[3 * size :]
        b, c, dh, dc, keep = before[n], cell[n], dhidden[n], dcell[n], cont[n]
        for d in range(size):
            do[d] = tanh(c[d])
        for d in range(size):
            dc[d] += dh[d] * o[d] * (one - do[d] * do[d])
        for d in range(size):
            do[d] = dh[d] * do[d] * o[d] * (one - o[d])
        for d in range(size):
            di[d] = dc[d] * g[d] * i[d] * (one - i[d])
        for d in range(size):
            df[d] = dc[d] * keep * b[d] * f[d] * (one - f[d])
        for d in range(size):
            dg[d] = dc[d] * i[d] * (one - g[d] * g[d])
        for d in range(size):
            dc[d] *= keep * f[d]


@final
class LSTM(Recurrent):
    TYPE: ClassVar[str] = "LSTM"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 5)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 3)
    GATES: ClassVar[int] = 4
    STATES: ClassVar[int] = 2

    def step(self, t: int, cont: np.ndarray) -> None:
        hidden, cell = self.states
        spread(lstm_step, len(cont), 32 * self.size, self.gates[t], cont, cell[t], cell[t + 1], hidden[t + 1])

    def step_backward(self, t: int, cont: np.ndarray, dstate: np.ndarray) -> None:
        cell = self.states[1]
        arrays = (self.gates[t], cont, cell[t], cell[t + 1], *dstate, self.dgates[t])
        spread(lstm_step_backward, len(cont), 32 * self.size, *arrays)

    def output(self, y: np.ndarray) -> None:
        y[...] = self.states[0, 1:]

    def output_backward(self, dy: np.ndarray) -> np.ndarray:
        return dy
