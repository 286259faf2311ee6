"""Transpose: the axes in another order: axis k of the top is axis dim[k] of the bottom (CRNN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.channels import ChannelKeeper
from sslnet.layers.onnx import OnnxGraph


@final
class Transpose(ChannelKeeper):
    TYPE: ClassVar[str] = "Transpose"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = (
        "removed with their values in the top; if images are mixed or the order of channels changes, all are kept"
    )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, order = bottom[0], list(self.param.transpose_param.dim)
        if sorted(order) != list(range(x.num_axes)):
            raise self.shape_error(
                f'dim must name each axis of "{x.name}", {x.shape}, once: 0 to {x.num_axes - 1}, not {order}',
                "transpose_param",
            )
        self.order = order
        top[0].reshape(*(x.shape[axis] for axis in order))
        self.keep_channels(top[0], order[:2] == [0, 1])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = bottom[0].data.transpose(self.order)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff.transpose(np.argsort(self.order))

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if self.order[0] != 0:
            graph.fix_batch(self)
        return [graph.node("Transpose", inputs, perm=list(self.order))]
