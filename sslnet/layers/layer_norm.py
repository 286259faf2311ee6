"""LayerNorm: values to mean 0 and variance 1 over ``num_axes`` axes from ``axis`` on; by default over the last axis.

y = (x - mean) / sqrt(variance + eps), with the population variance; dx = (dy - mean(dy) - y mean(dy y)) / sqrt(variance + eps).
With axis 1 and num_axes 1 each pixel is normalised over its channels, as in ConvNeXt. A Scale layer behind it holds gamma
and beta.

bottom, top  any shape

Ref: Ba, Kiros, Hinton 2016
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.layers.axes import axis_of
from sslnet.layers.base import Blobs
from sslnet.layers.channels import channel_axis
from sslnet.layers.onnx import OnnxGraph
from sslnet.layers.standardized import Standardized


@final
class LayerNorm(Standardized):
    TYPE: ClassVar[str] = "LayerNorm"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.check_eps(self.param.layer_norm_param.eps, "layer_norm_param")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x, param = bottom[0], self.param.layer_norm_param
        if not x.num_axes:
            raise self.shape_error(f'LayerNorm needs an axis: "{x.name}" is one number')
        self.axis = axis_of(self, x, param.axis, "layer_norm_param", "axis")
        self.end = x.num_axes if param.num_axes == -1 else self.axis + param.num_axes
        if not self.axis < self.end <= x.num_axes:
            raise self.shape_error(
                f'{param.num_axes} axes from axis {self.axis} on are not in "{x.name}" of shape {x.shape}',
                "layer_norm_param",
                "num_axes",
            )
        top[0].reshape_like(x)
        fold = (x.count_of(0, self.axis), x.count_of(self.axis, self.end), x.count_of(self.end))
        channels = channel_axis(x)
        self.average(fold, by_channel=self.axis > channels)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        x, value = bottom[0], inputs[0]
        if self.axis == 0:
            graph.fix_batch(self)
        axes = list(range(x.num_axes))
        order = [*axes[: self.axis], *axes[self.end :], *axes[self.axis : self.end]]
        if order != axes:
            value = graph.node("Transpose", [value], perm=order)
        count = self.end - self.axis
        ones = graph.constant(np.ones([x.shape[axis] for axis in order[-count:]]))
        value = graph.node("LayerNormalization", [value, ones], axis=-count, epsilon=self.eps)
        return [value if order == axes else graph.node("Transpose", [value], perm=np.argsort(order).tolist())]
