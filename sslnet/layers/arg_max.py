"""ArgMax: the indices of the ``top_k`` largest values, largest first; on a tie the later index. There is no gradient.

Without ``axis``, the search covers all values of an image: the top is (N, 1, top_k), or with ``out_max_val``
(N, 2, top_k), indices first, then values; trailing axes of size 1 fill up to the bottom's number of axes. With
``axis``, the search runs along that axis, which has top_k elements in the top: indices, or values with ``out_max_val``.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.no_gradient import NoInputGradient
from sslnet.layers.onnx import FLOAT, OnnxGraph


@final
class ArgMax(NoInputGradient):
    TYPE: ClassVar[str] = "ArgMax"
    KIND: ClassVar[str] = "result"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, x = self.param.argmax_param, bottom[0]
        self.along = param.HasField("axis")
        if self.along:
            axis = axis_of(self, x, param.axis, "argmax_param", "axis")
            self.fold = (x.count_of(0, axis), x.shape[axis], x.count_of(axis + 1))
            top[0].reshape(*x.shape[:axis], param.top_k, *x.shape[axis + 1 :])
        else:
            self.fold = (x.num, x.count // max(1, x.num), 1)
            top[0].reshape(x.num, 2 if param.out_max_val else 1, param.top_k, *(1,) * (x.num_axes - 3))
        if not 1 <= param.top_k <= self.fold[1]:
            raise self.error(
                f"top_k must be from 1 to the {self.fold[1]} values, not {param.top_k}", "argmax_param", "top_k"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        param, x = self.param.argmax_param, bottom[0].data.reshape(self.fold)
        # A stable sort of the reversed axis puts the later of equal values first.
        order = np.argsort(-x[:, ::-1], axis=1, kind="stable")[:, : param.top_k]
        index = self.fold[1] - 1 - order
        if not param.out_max_val:
            top[0].data.reshape(index.shape)[...] = index
            return
        values = np.take_along_axis(x, index, axis=1)
        result = values if self.along else np.stack([index, values], axis=1)
        top[0].data.reshape(result.shape)[...] = result

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        param = self.param.argmax_param
        axis = param.axis if self.along else 1
        value = inputs[0] if self.along else graph.node("Flatten", inputs, axis=1)
        if param.top_k == 1 and not param.out_max_val:  # on a tie the later index, as in the layer
            index = graph.node("ArgMax", [value], axis=axis, keepdims=1, select_last_index=1)
            values = ""
        else:
            values, index = graph.node("TopK", [value, graph.integers([param.top_k])], outputs=2, axis=axis)
        result = graph.node("Cast", [index], to=FLOAT)
        if self.along:
            return [values if param.out_max_val else result]
        if param.out_max_val:
            result = graph.node("Concat", [result, values], axis=1)
        return [graph.reshape(self, result, (bottom[0].num,), top[0].shape)]
