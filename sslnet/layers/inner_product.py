"""InnerProduct: y = x W^T + b, the fully connected layer, over the axes of x from ``axis`` (default 1) on; any shape.

dx = dy W; dW += dy^T x; db += sum of dy over the images.

bottom   x (N, K): the axes before ``axis`` counted together as N, the others as K
top      the axes before ``axis``, then num_output
weights  (num_output, K); with ``transpose`` (K, num_output)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.kernels.matmul.blas import add_product, multiply
from sslnet.layers.affine import fold_shift
from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.bounds import ChannelBox, weighted_sums
from sslnet.layers.onnx import OnnxGraph


@final
class InnerProduct(Layer):
    TYPE: ClassVar[str] = "InnerProduct"
    KIND: ClassVar[str] = "connected"
    HAS_WEIGHTS: ClassVar[bool] = True
    MIXES_CHANNELS: ClassVar[bool] = True
    DEFAULT_GROUP: ClassVar[str] = "OUTPUT_NEURON"
    LOW_RANK: ClassVar[bool] = True
    CHANNELS: ClassVar[str] = (
        "outputs and inputs are removed, constants are folded into the bias; along another axis all are kept"
    )

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.inner_product_param.num_output} outputs"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.inner_product_param
        if not param.num_output:
            raise self.error("num_output must be at least 1", "inner_product_param", "num_output")
        self.num_output: int = param.num_output
        self.transpose: bool = param.transpose
        self.axis = axis_of(self, bottom[0], param.axis, "inner_product_param", "axis")
        size = bottom[0].count_of(self.axis)
        self.new_param(
            (size, self.num_output) if self.transpose else (self.num_output, size),
            "inner_product_param",
            "weight_filler",
        )
        if param.bias_term:
            self.new_param((self.num_output,), "inner_product_param", "bias_filler")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        size, expected = x.count_of(self.axis), self.blobs[0].shape[0 if self.transpose else 1]
        if size != expected:
            raise self.shape_error(
                f'the weights take {expected} values an image, "{x.name}" of shape {x.shape} has {size} from axis '
                f"{self.axis} on"
            )
        self.channel_size = x.count_of(2) if x.num_axes > 1 else 1
        top[0].reshape(*x.shape[: self.axis], self.num_output)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        y = top[0].data.reshape(-1, self.num_output)
        multiply(self._matrix(bottom[0].data), self._weights(self.blobs[0].data).T, y)
        if len(self.blobs) > 1:
            y += self.blobs[1].data

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return self.param_propagate_down[0]

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        x, dy = self._matrix(bottom[0].data), top[0].diff.reshape(-1, self.num_output)
        if self.param_propagate_down[0]:
            if self.transpose:
                add_product(x.T, dy, self.blobs[0].diff)
            else:
                add_product(dy.T, x, self.blobs[0].diff)
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            bias = self.blobs[1].diff
            bias += dy.sum(axis=0)
        if propagate_down[0]:
            multiply(dy, self._weights(self.blobs[0].data), self._matrix(bottom[0].diff))

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * bottom[0].count * self.num_output

    def _matrix(self, array: np.ndarray) -> np.ndarray:
        """The bottom's data or diff as (N, K)."""
        return array.reshape(-1, self.blobs[0].shape[0 if self.transpose else 1])

    def _weights(self, array: np.ndarray) -> np.ndarray:
        """The weights, or their diff, as (num_output, K)."""
        return array.T if self.transpose else array

    # -- groups of a penalty -------------------------------------------------------------------------------------------

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        if self.axis != 1:
            return super().bounds(bottom, top)
        weights = self.blobs[0].data.T if self.transpose else self.blobs[0].data
        weights = weights.reshape(self.num_output, bottom[0].size, -1)
        bias = self.blobs[1].data if len(self.blobs) > 1 else None
        return [weighted_sums(bottom[0], weights, bias, dtype=self.dtype, terms=weights[0].size)]

    def group_tiles(self, index: int) -> dict[str, tuple[int, int]]:
        if index:
            return {"OUTPUT_NEURON": (1, 1)}
        rows, columns = self.blobs[0].shape
        if self.transpose:
            tiles = {"OUTPUT_NEURON": (rows, 1), "INPUT_NEURON": (1, columns), "CHANNEL": (self.channel_size, columns)}
        else:
            tiles = {"OUTPUT_NEURON": (1, columns), "INPUT_NEURON": (rows, 1), "CHANNEL": (rows, self.channel_size)}
        if self.axis != 1:  # the inputs are not the channels of the bottom
            del tiles["CHANNEL"]
        return tiles

    def weights_by_channel(self) -> np.ndarray:
        return self._weights(self.blobs[0].data).reshape(self.num_output, -1, self.channel_size)

    # -- compaction: a bottom channel is channel_size columns, a top channel one row -----------------------------------

    SHRINKS: ClassVar[bool] = True
    ABSORBS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        if self.axis != 1:
            return []
        used: np.ndarray = (self._uses() & ~bottom[0]).any(axis=1)
        return [~used]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [self._uses()[top[0]].any(axis=0) & ~bottom_constant[0]] if self.axis == 1 else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        """No channel is forced; along an axis other than the channels all are kept."""
        return [] if self.axis == 1 else [np.ones(self._top_channels(bottom[0]), bool)]

    def shrink(
        self, bottom_keep: list[np.ndarray], top_keep: list[np.ndarray], shift: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray]]:
        param, blobs = super().shrink(bottom_keep, top_keep, shift)
        if self.axis != 1:
            return param, blobs
        by_channel = self.weights_by_channel()[top_keep[0]][:, bottom_keep[0]]
        weights = by_channel.reshape(len(by_channel), -1)
        bias = blobs[1][top_keep[0]] if len(blobs) > 1 else None
        param.inner_product_param.num_output = len(top_keep[0])
        bias = fold_shift(param, param.inner_product_param, bias, shift)
        weights = np.ascontiguousarray(weights.T if self.transpose else weights)
        return param, [weights] if bias is None else [weights, bias]

    def _uses(self) -> np.ndarray:
        """(num_output, bottom channels) bool: whether the output has a nonzero weight on the channel."""
        uses: np.ndarray = (self.weights_by_channel() != 0).any(axis=2)
        return uses

    def _top_channels(self, bottom: BoolVector) -> int:
        """Size of the top's channel axis when the sum does not include the bottom's channel axis."""
        return self.num_output if self.axis == 0 else len(bottom)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        x, value = bottom[0], inputs[0]
        bias = [graph.param(self, 1)] if len(self.blobs) > 1 else []
        if self.axis == 1:
            if x.num_axes != 2:
                value = graph.node("Flatten", [value], axis=1)
            return [graph.node("Gemm", [value, graph.param(self, 0), *bias], transB=int(not self.transpose))]
        weights = self.blobs[0].data if self.transpose else self.blobs[0].data.T
        lead = x.shape[: self.axis]
        value = graph.reshape(self, value, x.shape, (*lead, weights.shape[0]) if lead else (1, weights.shape[0]))
        value = graph.node("MatMul", [value, graph.param(self, 0, weights, "matrix")])
        if bias:
            value = graph.node("Add", [value, *bias])
        return [value if lead else graph.reshape(self, value, (), top[0].shape)]
