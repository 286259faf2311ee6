"""Sparsify: soft threshold forward, the l1 norm of the top in the gradient: learns sparse feature maps.

    y = sign(x) max(|x| - thre, 0)        dx = (dy + coef sign(y)), 0 where thre is above 0 and y is 0

The term coef |y| is in the gradient alone, not in the loss that is shown. Any shape, in place or not.

Ref: Wen et al., the branch for sparse feature maps of the authors of structured sparsity learning
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph


@final
class Sparsify(ChannelWise):
    TYPE: ClassVar[str] = "Sparsify"
    KIND: ClassVar[str] = "activation"
    IN_PLACE: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.sparsify_param
        for name in ("thre", "coef"):
            if not getattr(param, name) >= 0:
                message = f"{name} must be 0 or above, not {getattr(param, name):g}"
                raise self.error(message, "sparsify_param", name, value=True)
        self.threshold, self.strength = self.dtype.type(param.thre), self.dtype.type(param.coef)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0].data
        if self.threshold:
            top[0].data[...] = np.sign(x) * np.maximum(np.abs(x) - self.threshold, 0)
        elif top[0] is not bottom[0]:
            top[0].data[...] = x

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def reads_top(self, in_place: bool) -> bool:
        return True

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            signs = np.sign(top[0].data)
            slope = top[0].diff + self.strength * signs
            bottom[0].diff[...] = slope * np.abs(signs) if self.threshold else slope

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if not self.threshold:
            return list(inputs)
        return [graph.node("Shrink", [inputs[0]], lambd=float(self.threshold), bias=float(self.threshold))]
