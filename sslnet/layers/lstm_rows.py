"""Lstm: the LSTM of junhyukoh's fork, whose rows are time steps times sequences; gates and states as in LSTM.

    a_t = W_x x_t + b + W_h (cont_t h_{t-1})      i, f, o = sigmoid(a)      g = tanh(a)
    c_t = cont_t f c_{t-1} + i g                  y_t = h_t = o tanh(c_t)

bottoms  x (T N, ...), row t N + n is time step t of sequence n, N is batch_size; optionally cont (T N), 0 where a new
         sequence begins. Without it each pass begins anew; with it, the last state of a pass is the first of the next one
top      y (T N, H)
blobs    W_x (4 H, inputs), W_h (4 H, H), b (4 H); gates in the order i, f, o, g

With ``clipping_threshold`` the diffs of the gates' inputs are limited to it; gradients stop at the start of a pass. The
fork adds to the gradient of W_h where a sequence begins, too, which is no gradient; here it is that of the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.matmul.blas import add_product, multiply
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.lstm import lstm_step, lstm_step_backward


@final
class Lstm(Layer):
    TYPE: ClassVar[str] = "Lstm"
    KIND: ClassVar[str] = "connected"
    MIXES_CHANNELS: ClassVar[bool] = True
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 2)

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.lstm_param.num_output} units"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.lstm_param
        for name in ("num_output", "batch_size"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", "lstm_param", name)
        if param.clipping_threshold < 0:
            raise self.error("clipping_threshold must be 0 or above", "lstm_param", "clipping_threshold", value=True)
        if bottom[0].num_axes < 1:
            raise self.shape_error("x must have an axis of time steps times sequences")
        self.size: int = param.num_output
        self.new_param((4 * self.size, bottom[0].count_of(1)), "lstm_param", "weight_filler")
        self.new_param((4 * self.size, self.size), "lstm_param", "weight_filler")
        self.new_param((4 * self.size,), "lstm_param", "bias_filler")
        self.states = np.zeros((2, 1, param.batch_size, self.size), self.dtype)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        images: int = self.param.lstm_param.batch_size
        x = bottom[0]
        if x.shape[0] % images:
            message = f"the {x.shape[0]} rows of x must be a multiple of batch_size {images}: {x.shape}"
            raise self.shape_error(message, "lstm_param", "batch_size")
        if x.count_of(1) != self.blobs[0].shape[1]:
            raise self.shape_error(f"the weights take {self.blobs[0].shape[1]} inputs: x has shape {x.shape}")
        if len(bottom) > 1 and bottom[1].count != x.shape[0]:
            raise self.shape_error(f"cont must have one number a row of x: {bottom[1].shape} and {x.shape}")
        steps = x.shape[0] // images
        self.fold = (steps, images)
        top[0].reshape(steps * images, self.size)
        if self.states.shape[1] != steps + 1:
            last = self.states[:, -1]
            self.states = np.zeros((2, steps + 1, images, self.size), self.dtype)
            self.states[:, -1] = last
        self.kept = np.zeros((steps, images, self.size), self.dtype)
        self.gates, self.dgates = np.zeros((2, steps, images, 4 * self.size), self.dtype)
        self.cont = np.ones(self.fold, self.dtype)
        self.cont[:1] = 0

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom) > 1:
            self.cont[...] = bottom[1].data.reshape(self.fold) != 0
            self.states[:, 0] = self.states[:, -1]
        else:
            self.states[:, 0] = 0
        rows = self.gates.reshape(-1, 4 * self.size)
        multiply(bottom[0].data.reshape(len(rows), -1), self.blobs[0].data.T, rows)
        rows += self.blobs[2].data
        hidden, cell = self.states
        weights = self.blobs[1].data.T
        for t, cont in enumerate(self.cont):
            np.multiply(cont[:, None], hidden[t], out=self.kept[t])
            self.gates[t] += self.kept[t] @ weights
            arrays = (self.gates[t], cont, cell[t], cell[t + 1], hidden[t + 1])
            spread(lstm_step, len(cont), 32 * self.size, *arrays)
        top[0].data[...] = hidden[1:].reshape(top[0].shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if any(propagate_down[1:]):
            raise self.run_error("Lstm has no gradient for cont")
        weights, cell = self.blobs[1].data, self.states[1]
        dy = top[0].diff.reshape(*self.fold, self.size)
        dhidden, dcell = np.zeros((2, self.fold[1], self.size), self.dtype)
        limit = self.param.lstm_param.clipping_threshold
        for t in reversed(range(self.fold[0])):
            dhidden += dy[t]
            arrays = (self.gates[t], self.cont[t], cell[t], cell[t + 1], dhidden, dcell, self.dgates[t])
            spread(lstm_step_backward, self.fold[1], 32 * self.size, *arrays)
            if limit > 0:
                np.clip(self.dgates[t], -limit, limit, out=self.dgates[t])
            np.multiply(self.cont[t][:, None], self.dgates[t] @ weights, out=dhidden)
        flat = self.dgates.reshape(-1, 4 * self.size)
        if self.param_propagate_down[0]:
            add_product(flat.T, bottom[0].data.reshape(len(flat), -1), self.blobs[0].diff)
        if self.param_propagate_down[1]:
            add_product(flat.T, self.kept.reshape(len(flat), -1), self.blobs[1].diff)
        if self.param_propagate_down[2]:
            dbias = self.blobs[2].diff
            dbias += flat.sum(axis=0)
        if propagate_down[0]:
            multiply(flat, self.blobs[0].data, bottom[0].diff.reshape(len(flat), -1))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index == 0

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * bottom[0].shape[0] * (self.blobs[0].count + self.blobs[1].count)

    def state(self) -> bytes:
        last = self.states[:, -1]
        return last.tobytes() if last.any() and len(self.param.bottom) > 1 else b""

    def set_state(self, state: bytes) -> None:
        last = self.states[:, -1]
        if len(state) not in (0, last.nbytes):
            raise self.run_error(f"the saved state has {len(state)} bytes, that of the layer has {last.nbytes}")
        last[...] = np.frombuffer(state, self.dtype).reshape(last.shape) if state else 0
