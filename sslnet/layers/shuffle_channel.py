"""ShuffleChannel: transposes the channels as a matrix of ``group`` rows: y[n, j group + i] = x[n, i columns + j].

Ref: Zhang et al. 2018, ShuffleNet
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.onnx import OnnxGraph


@final
class ShuffleChannel(Layer):
    TYPE: ClassVar[str] = "ShuffleChannel"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = "removed at the same position in every group"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, group = bottom[0], self.param.shuffle_channel_param.group
        if x.num_axes < 2:
            raise self.shape_error(f'ShuffleChannel needs a channel axis: "{x.name}" has shape {x.shape}')
        if group < 1 or x.shape[1] % group:
            raise self.shape_error(
                f"group must divide the channels: {x.shape[1]} % {group} != 0", "shuffle_channel_param", "group"
            )
        top[0].reshape_like(x)
        self.rows = (x.shape[0], group, x.shape[1] // group, x.count_of(2))
        self.columns = (x.shape[0], x.shape[1] // group, group, x.count_of(2))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data.reshape(self.columns)[...] = np.swapaxes(bottom[0].data.reshape(self.rows), 1, 2)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            bottom[0].diff.reshape(self.rows)[...] = np.swapaxes(top[0].diff.reshape(self.columns), 1, 2)

    # -- compaction: all groups keep as many channels, so channels at one position of all groups are removed together --

    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0].reshape(self.rows[1:3]).T.reshape(-1)]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.tile(top[0].reshape(self.columns[1:3]).any(axis=1), self.rows[1])]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.repeat(bottom[0].reshape(self.rows[1:3]).any(axis=0), self.rows[1])]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        shape = bottom[0].shape
        group = self.param.shuffle_channel_param.group
        apart = (shape[0], group, shape[1] // group, *shape[2:])
        value = graph.reshape(self, inputs[0], shape, apart)
        value = graph.node("Transpose", [value], perm=[0, 2, 1, *range(3, len(apart))])
        return [graph.reshape(self, value, apart, shape)]
