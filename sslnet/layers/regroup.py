"""Regroup: the base of Flatten and Reshape, whose tops share the bottom's data with another shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channels import all_channels
from sslnet.layers.onnx import OnnxGraph


class Regroup(Layer, ABC):
    """Base of layers whose top and bottom share data and diff: forward and backward have nothing to do."""

    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = (
        "removed with their values in the top; if images are mixed or the order of channels changes, all are kept"
    )

    @abstractmethod
    def top_shape(self, bottom: Blob) -> list[int]:
        """The shape of the top; raises ShapeError."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, y = bottom[0], top[0]
        if y is x:
            raise self.error(f"{self.TYPE} cannot work in place: top and bottom must have different names", "top", 0)
        y.reshape(self.top_shape(x))
        if y.count != x.count:
            raise self.shape_error(
                f"the shape must keep the number of values: {x.shape} has {x.count}, {y.shape} {y.count}"
            )
        y.share_data(x)
        y.share_diff(x)
        self.block = self._block(x, y)
        self._all_channels = all_channels(y)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        pass

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [bottom[0].repeated(self.block)] if self.block else super().bounds(bottom, top)

    # -- compaction --------------------------------------------------------------------------------------------------
    #
    # Where axis 0 keeps its size, a bottom channel is a block of consecutive top channels: one channel if axis 1 keeps
    # its size as well, one for each of its values if the top has two axes. Anything else is refused.

    SHRINKS: ClassVar[bool] = True

    @staticmethod
    def _block(x: Blob, y: Blob) -> int:
        """Number of top channels per bottom channel; 0 where there is no such relation."""
        if x.num_axes < 2 or y.num_axes < 2 or x.shape[0] != y.shape[0]:
            return 0
        if x.shape[1] == y.shape[1]:
            return 1
        return x.count_of(2) if y.num_axes == 2 else 0

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.repeat(bottom[0], self.block)] if self.block else []

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(top[0].reshape(-1, self.block), axis=1)] if self.block else []

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.repeat(bottom[0], self.block) if self.block else self._all_channels]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        return [graph.reshape(self, inputs[0], bottom[0].shape, top[0].shape)]
