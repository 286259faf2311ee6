"""BatchReindex: y[i] = x[index[i]]: images selected by the second bottom, each any number of times.

dx[j] = sum of dy[i] where index[i] is j. There is no gradient of the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.channels import MOVED, ChannelKeeper
from sslnet.layers.onnx import INT64, OnnxGraph


@final
class BatchReindex(ChannelKeeper):
    TYPE: ClassVar[str] = "BatchReindex"
    KIND: ClassVar[str] = "join"
    CHANNELS: ClassVar[str] = MOVED
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    INDEX_BOTTOMS: ClassVar[tuple[int, ...]] = (1,)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, index = bottom
        if x.num_axes < 1 or index.num_axes != 1:
            raise self.shape_error(f"the index must have one axis: bottoms {x.shape} and {index.shape}")
        top[0].reshape(index.count, *x.shape[1:])
        self.keep_channels(top[0], x.num_axes > 1)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        np.take(bottom[0].data, self._index(bottom), axis=0, out=top[0].data, mode="clip")

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index > 0

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[1]:
            raise self.run_error("BatchReindex has no gradient for its index")
        if propagate_down[0]:
            bottom[0].diff[...] = 0
            np.add.at(bottom[0].diff, self._index(bottom), top[0].diff)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def _index(self, bottom: Blobs) -> np.ndarray:
        images, index = bottom[0].shape[0], bottom[1].data
        good = (index >= 0) & (index < images)
        if not good.all():
            place = int(np.argmin(good))
            raise self.batch_error(
                f"index {index[place]:g} at place {place} is out of range: the images are 0 .. {images - 1}"
            )
        return index.astype(np.int64)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        index = graph.node("Cast", [inputs[1]], to=INT64)
        graph.fix_batch(self)
        return [graph.node("Gather", [inputs[0], index], axis=0)]
