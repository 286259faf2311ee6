"""Parameter: a top that is a learned blob, with the given shape. The gradient of the blob is the top's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

from sslnet.layers.base import Blobs, Layer
from sslnet.layers.onnx import OnnxGraph


@final
class Parameter(Layer):
    TYPE: ClassVar[str] = "Parameter"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (0, 0)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        shape = list(self.param.parameter_param.shape.dim)
        for index, size in enumerate(shape):
            if size < 0:
                raise self.error(f"dim must not be negative, not {size}", "parameter_param", "shape", "dim", index)
        self.new_param(shape)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape_like(self.blobs[0])
        top[0].share_data(self.blobs[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        pass

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if self.param_propagate_down[0]:
            diff = self.blobs[0].diff
            diff += top[0].diff

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        return [graph.node("Identity", [graph.param(self, 0)])]
