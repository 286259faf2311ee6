"""Silence: reads blobs that no other layer reads, so that they are not outputs of the net.  dx = 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.onnx import OnnxGraph


@final
class Silence(Layer):
    TYPE: ClassVar[str] = "Silence"
    KIND: ClassVar[str] = "result"
    DEPLOYED: ClassVar[bool] = False
    CHANNELS: ClassVar[str] = "all can be removed"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, None)
    TOPS: ClassVar[tuple[int, int | None]] = (0, 0)
    SHRINKS: ClassVar[bool] = True
    LOSES_BOTTOMS: ClassVar[bool] = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for blob, wanted in zip(bottom, propagate_down):
            if wanted:
                blob.diff[...] = 0

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.zeros_like(channels) for channels in bottom_constant]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        return []
