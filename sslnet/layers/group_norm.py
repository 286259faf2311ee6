"""GroupNorm: each group of channels of each image to mean 0 and variance 1; with one group per channel, instance
normalisation.

y = (x - mean) / sqrt(variance + eps), both over the channels of the group and all pixels; the population variance.
dx = (dy - mean(dy) - y mean(dy y)) / sqrt(variance + eps). A Scale layer behind it holds gamma and beta.

bottom, top  (N, C, ...); ``group`` divides C

Ref: Wu, He 2018; Ulyanov, Vedaldi, Lempitsky 2016 (instance normalisation)
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.onnx import OnnxGraph
from sslnet.layers.standardized import Standardized


@final
class GroupNorm(Standardized):
    TYPE: ClassVar[str] = "GroupNorm"

    @classmethod
    def describe(cls, param: Any) -> str:
        group = param.group_norm_param.group
        return f"{group} groups" if group else "each channel"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.check_eps(self.param.group_norm_param.eps, "group_norm_param")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if x.num_axes < 2:
            raise self.shape_error(f'GroupNorm needs a channel axis: "{x.name}" has shape {x.shape}')
        self.group = self.param.group_norm_param.group or x.shape[1]
        if not x.shape[1] or x.shape[1] % self.group:
            raise self.shape_error(
                f"group must divide the channels: {x.shape[1]} channels, group {self.group}",
                "group_norm_param",
                "group",
            )
        top[0].reshape_like(x)
        fold = (x.shape[0] * self.group, x.count_of(1) // self.group, 1)
        self.average(fold, by_channel=not self.param.group_norm_param.group)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        x = bottom[0]
        shape, count = x.shape, self.group
        ones, zeros = graph.constant(np.ones(count)), graph.constant(np.zeros(count))
        each = not self.param.group_norm_param.group and x.num_axes > 2
        parts = (shape[0], count, -1)
        value = inputs[0] if each else graph.reshape(self, inputs[0], shape, parts)
        value = graph.node("InstanceNormalization", [value, ones, zeros], epsilon=self.eps)
        return [value if each else graph.reshape(self, value, parts, shape)]
