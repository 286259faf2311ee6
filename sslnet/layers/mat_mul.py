"""MatMul: the product of the matrices in the last two axes of both bottoms: y = a b; ``transpose_a``, ``transpose_b``
transpose them first.

da = dy b', db = a' dy (transposed accordingly).

bottoms  (..., M, K) and (..., K, N), with the same first axes
top      (..., M, N)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs, Layer
from sslnet.layers.onnx import OnnxGraph


@final
class MatMul(Layer):
    TYPE: ClassVar[str] = "MatMul"
    KIND: ClassVar[str] = "join"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        a, b = bottom
        if a.num_axes < 2 or a.shape[:-2] != b.shape[:-2]:
            raise self.shape_error(
                f'MatMul needs matrices with the same axes before them: "{a.name}" {a.shape}, "{b.name}" {b.shape}'
            )
        param = self.param.mat_mul_param
        self.turned = (param.transpose_a, param.transpose_b)
        rows, inner = a.shape[-2:][:: -1 if self.turned[0] else 1]
        other, columns = b.shape[-2:][:: -1 if self.turned[1] else 1]
        if inner != other:
            raise self.shape_error(f'inner sizes differ: "{a.name}" {a.shape}, "{b.name}" {b.shape}', "mat_mul_param")
        self.inner = inner
        top[0].reshape(*a.shape[:-2], rows, columns)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        a, b = (self._matrix(blob.data, turned) for blob, turned in zip(bottom, self.turned))
        np.matmul(a, b, out=top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        a, b = (self._matrix(blob.data, turned) for blob, turned in zip(bottom, self.turned))
        dy = top[0].diff
        if propagate_down[0]:
            np.matmul(dy, b.swapaxes(-1, -2), out=self._matrix(bottom[0].diff, self.turned[0]))
        if propagate_down[1]:
            np.matmul(a.swapaxes(-1, -2), dy, out=self._matrix(bottom[1].diff, self.turned[1]))

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return True

    @staticmethod
    def _matrix(array: np.ndarray, turned: bool) -> np.ndarray:
        return array.swapaxes(-1, -2) if turned else array

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 2 * self.inner * top[0].count

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        values = []
        for value, blob, turned in zip(inputs, bottom, self.turned):
            axes = [*range(blob.num_axes - 2), blob.num_axes - 1, blob.num_axes - 2]
            if turned and blob.num_axes == 2:
                graph.fix_batch(self)
            values.append(graph.node("Transpose", [value], perm=axes) if turned else value)
        return [graph.node("MatMul", values)]
