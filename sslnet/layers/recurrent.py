"""Recurrent: the base of RNN and LSTM, layers that run through sequences and carry a hidden state.

bottoms  x (T, N, ...); cont (T, N), 0 where a new sequence starts and the state is reset; optionally a static input
         (N, ...), the same at each time step; with ``expose_hidden`` the initial state, each part (1, N, H)
tops     y (T, N, H); with ``expose_hidden`` the final state, each part (1, N, H)
blobs    W_x (G H, inputs), b (G H), W_static (G H, static inputs) with a static input, W_h (G H, H), for G gates;
         then those of the subclass

At each time step the gates get   a_t = W_x x_t + b + W_static s + W_h (cont_t h_{t-1})   and give the next state.
The final state of a pass is the initial state of the next, unless it is exposed; gradients stop at the start of a pass.

Ref: Donahue et al. 2015, "Long-term recurrent convolutional networks" (Caffe's implementation)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sslnet.kernels.matmul.blas import add_product, multiply
from sslnet.layers.base import Blobs, BoolVector, Layer


class Recurrent(Layer, ABC):
    KIND: ClassVar[str] = "connected"
    MIXES_CHANNELS: ClassVar[bool] = True
    CHANNELS: ClassVar[str] = "channels of the static input without a non-zero weight are removed; all others are kept"
    GATES: ClassVar[int]
    """Number of gates G: a step has G * H pre-activations."""
    STATES: ClassVar[int]
    """Number of parts of the state; the first is h."""

    # -- defined by a subclass -----------------------------------------------------------------------------------------

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.recurrent_param.num_output} units"

    def setup_output(self) -> None:
        """Creates the parameter blobs after W_h."""

    @abstractmethod
    def step(self, t: int, cont: np.ndarray) -> None:
        """Computes ``self.states[:, t + 1]`` from ``self.states[:, t]`` and ``self.gates[t]`` (may be overwritten)."""

    @abstractmethod
    def step_backward(self, t: int, cont: np.ndarray, dstate: np.ndarray) -> None:
        """Overwrites ``self.dgates[t]`` and replaces dstate, the diff of state t + 1, by that of state t.

        The caller then overwrites dstate[0], the diff of h_{t-1}, which passes through W_h.
        """

    @abstractmethod
    def output(self, y: np.ndarray) -> None:
        """Computes the top from ``self.states[0, 1:]``. [overwrites y]"""

    @abstractmethod
    def output_backward(self, dy: np.ndarray) -> np.ndarray:
        """The diff of ``self.states[0, 1:]``; accumulates into the diffs of the blobs after W_h."""

    # -- shapes --------------------------------------------------------------------------------------------------------

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.recurrent_param
        self.exposed: int = self.STATES if param.expose_hidden else 0
        if param.num_output < 1:
            raise self.error("num_output must be at least 1", "recurrent_param", "num_output")
        if len(bottom) - self.exposed not in (2, 3):
            raise self.error(
                f"{len(bottom)} bottoms: it takes x, cont{self._hidden_words()} and may take a static input"
            )
        if len(top) != 1 + self.exposed:
            raise self.error(f"{len(top)} tops: it gives y{self._hidden_words()}")
        self.static = len(bottom) - self.exposed == 3
        self.size: int = param.num_output
        if bottom[0].num_axes < 2 or (self.static and bottom[2].num_axes < 1):
            raise self.shape_error(f"x must start with the axes T, N: {bottom[0].shape}")
        rows = self.GATES * self.size
        self.new_param((rows, bottom[0].count_of(2)), "recurrent_param", "weight_filler")
        self.new_param((rows,), "recurrent_param", "bias_filler")
        if self.static:
            self.new_param((rows, bottom[2].count_of(1)), "recurrent_param", "weight_filler")
        self.new_param((rows, self.size), "recurrent_param", "weight_filler")
        self.recurrent = len(self.blobs) - 1
        """Index of W_h in ``self.blobs``."""
        self.setup_output()
        self.states = np.zeros((self.STATES, 1, 0, self.size), self.dtype)

    def _hidden_words(self) -> str:
        return f" and {self.exposed} hidden states" if self.exposed else ""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, cont = bottom[:2]
        self.fold = steps, images = x.shape[:2]
        if cont.shape != (steps, images):
            raise self.shape_error(f"cont must have the shape (T, N) of x, {(steps, images)}, not {cont.shape}")
        given = [x.count_of(2), *([bottom[2].count_of(1)] if self.static else [])]
        taken = [blob.shape[1] for blob in (self.blobs[0], *([self.blobs[2]] if self.static else []))]
        if given != taken or (self.static and bottom[2].shape[0] != images):
            raise self.shape_error(
                f"the weights take {' and '.join(map(str, taken))} inputs of {images} sequences: bottoms "
                f"{', '.join(str(blob.shape) for blob in bottom[: 2 + self.static])}"
            )
        hidden = (1, images, self.size)
        for blob in bottom[2 + self.static :]:
            if blob.shape != hidden:
                raise self.shape_error(
                    f'"{blob.name}" must have the shape of a hidden state, {hidden}, not {blob.shape}'
                )
        if self.static:
            self._static_channels = bottom[2].shape[1] if bottom[2].num_axes > 1 else 1
        top[0].reshape(steps, images, self.size)
        for blob in top[1:]:
            blob.reshape(hidden)
        if self.states.shape != (self.STATES, steps + 1, images, self.size):
            # The state continues when the length T changes; it is reset when the number N of sequences changes.
            last = self.states[:, -1]
            self.states = np.zeros((self.STATES, steps + 1, images, self.size), self.dtype)
            if last.shape == self.states[:, -1].shape:
                self.states[:, -1] = last
            self.kept = np.zeros((steps, images, self.size), self.dtype)
            """(T, N, H): cont_t h_{t-1}, the factor of W_h."""
            self.gates, self.dgates = np.zeros((2, steps, images, self.GATES * self.size), self.dtype)

    # -- running -------------------------------------------------------------------------------------------------------

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        steps, images = self.fold
        weights = self.blobs[self.recurrent].data.T
        for part, state in enumerate(self.states):
            state[0] = bottom[2 + self.static + part].data[0] if self.exposed else state[-1]
        flat = self.gates.reshape(steps * images, -1)
        multiply(bottom[0].data.reshape(steps * images, -1), self.blobs[0].data.T, flat)
        flat += self.blobs[1].data
        if self.static:
            self.gates += bottom[2].data.reshape(images, -1) @ self.blobs[2].data.T
        for t in range(steps):
            cont = bottom[1].data[t]
            np.multiply(cont[:, None], self.states[0, t], out=self.kept[t])
            self.gates[t] += self.kept[t] @ weights
            self.step(t, cont)
        self.output(top[0].data)
        for blob, state in zip(top[1:], self.states):
            blob.data[0] = state[-1]

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[1]:
            raise self.run_error(f"{self.TYPE} has no gradient for cont")
        weights = self.blobs[self.recurrent].data
        dhidden = self.output_backward(top[0].diff)
        dstate = np.zeros((self.STATES, *self.states.shape[2:]), self.dtype)
        for part, blob in enumerate(top[1:]):
            dstate[part] = blob.diff[0]
        for t in reversed(range(self.fold[0])):
            cont = bottom[1].data[t]
            dstate[0] += dhidden[t]
            self.step_backward(t, cont, dstate)
            np.multiply(cont[:, None], self.dgates[t] @ weights, out=dstate[0])
        self._accumulate(propagate_down, bottom)
        for part, blob in enumerate(bottom[2 + self.static :]):
            if propagate_down[2 + self.static + part]:
                blob.diff[0] = dstate[part]

    def _accumulate(self, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Computes the diffs of x, the static input and the weights from those of the gates at all time steps."""
        steps, images = self.fold
        flat = self.dgates.reshape(steps * images, -1)
        pairs = [(0, flat, bottom[0]), *([(2, self.dgates.sum(axis=0), bottom[2])] if self.static else [])]
        for index, dgates, blob in pairs:
            if self.param_propagate_down[index]:
                add_product(dgates.T, blob.data.reshape(len(dgates), -1), self.blobs[index].diff)
            if propagate_down[index]:
                multiply(dgates, self.blobs[index].data, blob.diff.reshape(len(dgates), -1))
        if self.param_propagate_down[1]:
            dbias = self.blobs[1].diff
            dbias += flat.sum(axis=0)
        if self.param_propagate_down[self.recurrent]:
            add_product(flat.T, self.kept.reshape(steps * images, -1), self.blobs[self.recurrent].diff)

    def allow_force_backward(self, index: int) -> bool:
        return index != 1

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        steps, images = self.fold
        each = 2 * images * sum(blob.count for blob in self.blobs if blob.num_axes == 2)
        return steps * each - (2 * images * self.blobs[2].count * (steps - 1) if self.static else 0)

    # -- state: the initial state of the next pass ---------------------------------------------------------------------

    def state(self) -> bytes:
        last = self.states[:, -1]
        return last.tobytes() if last.any() else b""

    def set_state(self, state: bytes) -> None:
        last = self.states[:, -1]
        if len(state) not in (0, last.nbytes):
            raise self.run_error(
                f"the saved state has {len(state)} bytes, that of {last.shape[1]} sequences has {last.nbytes}"
            )
        last[...] = np.frombuffer(state, self.dtype).reshape(last.shape) if state else 0

    # -- compaction ----------------------------------------------------------------------------------------------------
    #
    # Channels of the static input with zero weights are removed. Axis 1 of other blobs counts sequences and is kept.

    SHRINKS: ClassVar[bool] = True

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        needed = [np.ones_like(channels) for channels in bottom_constant]
        if self.static:
            needed[2] = (self._by_channel() != 0).any(axis=(0, 2))
            needed[2][0] |= not needed[2].any()
        return needed

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.ones_like(bottom[0]) for _ in self.param.top]

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if self.static:
            blobs[2] = self._by_channel()[:, bottom_keep[2]].reshape(len(blobs[2]), -1)
        return param, blobs

    def _by_channel(self) -> np.ndarray:
        """The weights of the static input as (rows, channels, values per channel)."""
        return self.blobs[2].data.reshape(len(self.blobs[2].data), self._static_channels, -1)
