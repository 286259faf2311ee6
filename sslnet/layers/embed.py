"""Embed: y[..., :] = weights[x[...]] (+ bias): row i of a learned table for each input i.

bottom   any shape, whole numbers from 0 to input_dim - 1; there is no gradient
top      the bottom's shape with a further axis of num_output values
weights  (input_dim, num_output); bias (num_output)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs, BoolVector
from sslnet.layers.no_gradient import NoInputGradient
from sslnet.layers.onnx import INT64, OnnxGraph


@kernel
def _gather(i0, i1, thread, index, weights, y):
    for i in range(i0, i1):
        y[i] = weights[index[i]]


@kernel
def _scatter(c0, c1, thread, index, dy, dweights):
    """Accumulates dweights for the columns [c0, c1): inputs may share a row, so threads divide the columns."""
    for i in range(index.size):
        row, above = dweights[index[i], c0:c1], dy[i, c0:c1]
        for c in range(row.size):
            row[c] += above[c]


@final
class Embed(NoInputGradient):
    TYPE: ClassVar[str] = "Embed"
    KIND: ClassVar[str] = "connected"
    HAS_WEIGHTS: ClassVar[bool] = True
    MIXES_CHANNELS: ClassVar[bool] = True
    CHANNELS: ClassVar[str] = "columns of the table are removed if the inputs have one axis; otherwise all are kept"
    INDEX_BOTTOMS: ClassVar[tuple[int, ...]] = (0,)

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.embed_param.input_dim} words, {param.embed_param.num_output} outputs"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.embed_param
        for name in ("num_output", "input_dim"):
            if getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", "embed_param", name)
        self.new_param((param.input_dim, param.num_output), "embed_param", "weight_filler")
        if param.bias_term:
            self.new_param((param.num_output,), "embed_param", "bias_filler")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(*bottom[0].shape, self.param.embed_param.num_output)
        self._index = np.zeros(bottom[0].count, np.int64)
        self._by_channel = bottom[0].num_axes == 1
        self._top_channels = top[0].shape[min(1, top[0].num_axes - 1)]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        values, rows = bottom[0].data.reshape(-1), self.param.embed_param.input_dim
        good = (values >= 0) & (values < rows)
        if not good.all():
            place = int(np.argmin(good))
            raise self.batch_error(
                f"input {values[place]:g} at place {place} is out of range: the rows are 0 .. {rows - 1}"
            )
        self._index[:] = values
        y = top[0].data.reshape(values.size, -1)
        spread(_gather, *y.shape, self._index, self.blobs[0].data, y)
        if len(self.blobs) > 1:
            y += self.blobs[1].data

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            raise self.run_error("Embed has no gradient for its inputs")
        dy = top[0].diff.reshape(bottom[0].count, -1)
        if self.param_propagate_down[0]:
            spread(_scatter, dy.shape[1], dy.shape[0], self._index, dy, self.blobs[0].diff)
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            bias = self.blobs[1].diff
            bias += dy.sum(axis=0)

    # -- groups of a penalty -------------------------------------------------------------------------------------------

    def group_tiles(self, index: int) -> dict[str, tuple[int, int]]:
        if index:
            return {"OUTPUT_NEURON": (1, 1)}
        rows, columns = self.blobs[0].shape
        return {"OUTPUT_NEURON": (rows, 1), "INPUT_NEURON": (1, columns)}

    # -- compaction: with inputs along one axis, the columns of the table are the channels -----------------------------

    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        table = self.blobs[0].data
        return [(table == table[0]).all(axis=0)] if self._by_channel else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """No channel is forced; with inputs along several axes all are kept."""
        return [] if self._by_channel else [np.ones(self._top_channels, bool)]

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if self._by_channel:
            param.embed_param.num_output = len(top_keep[0])
            blobs = [blob[..., top_keep[0]] for blob in blobs]
        return param, blobs

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        value = graph.node("Gather", [graph.param(self, 0), graph.node("Cast", inputs, to=INT64)], axis=0)
        return [graph.node("Add", [value, graph.param(self, 1)]) if len(self.blobs) > 1 else value]
