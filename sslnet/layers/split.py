"""Split: every top equals the bottom. dx = the sum of the tops' diffs.

The net inserts one after every blob that several layers read. The tops share the bottom's data: forward does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.kernels.pointwise.elementwise import weighted_sum
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph


@final
class Split(ChannelWise):
    TYPE: ClassVar[str] = "Split"
    KIND: ClassVar[str] = "join"
    TOPS: ClassVar[tuple[int, int | None]] = (1, None)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for blob in top:
            blob.reshape_like(bottom[0])
            blob.share_data(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not propagate_down[0]:
            return
        dx, diffs = bottom[0].diff.reshape(-1), tuple(blob.diff.reshape(-1) for blob in top)
        spread(weighted_sum, dx.size, len(diffs), diffs, np.ones(len(diffs), dx.dtype), dx, False)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [bottom[0] for _ in top]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        return [inputs[0] for _ in top]
