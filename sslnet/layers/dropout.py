"""Dropout: in TRAIN each value is kept with probability 1 - p and scaled by 1 / (1 - p), else 0; in TEST y = x.

With scale_train false (NVIDIA) kept values are not scaled in TRAIN, and in TEST y = (1 - p) x. With sample_weights_test
(Bayesian SegNet) TEST is as TRAIN.

The mask is a function of the seed, the layer's name, the number of the forward pass and the value's index in the whole
batch, so that it is not stored (backward computes it again) and does not depend on the number of threads or processes.

Ref: Srivastava et al. 2014
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.runtime.counter_rng import draw_key, random_bits
from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.layers.base import Blobs
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.channelwise import ChannelWise
from sslnet.layers.onnx import OnnxGraph, linear


@kernel
def _apply(i0, i1, thread, x, y, key, threshold, scale, place):
    """y = x * scale where the random bits of the index reach the threshold, else 0.

    place   index of the first value in the whole batch, uint64
    """
    x, y = x[i0:i1], y[i0:i1]
    first, zero = np.uint64(i0) + place, y.dtype.type(0)
    for q in range(x.size):
        y[q] = x[q] * scale if random_bits(key, first + np.uint64(q)) >= threshold else zero


@kernel
def _apply_in_place(i0, i1, thread, y, key, threshold, scale, place):
    y = y[i0:i1]
    first, zero = np.uint64(i0) + place, y.dtype.type(0)
    for q in range(y.size):
        y[q] = y[q] * scale if random_bits(key, first + np.uint64(q)) >= threshold else zero


@final
class Dropout(ChannelWise):
    TYPE: ClassVar[str] = "Dropout"
    KIND: ClassVar[str] = "activation"
    IN_PLACE: ClassVar[bool] = True

    @classmethod
    def describe(cls, param: Any) -> str:
        return f"{param.dropout_param.dropout_ratio:g}"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        ratio = self.param.dropout_param.dropout_ratio
        if not 0 <= ratio < 1:
            raise self.error(
                f"dropout_ratio must be at least 0 and below 1, not {ratio:g}",
                "dropout_param",
                "dropout_ratio",
                value=True,
            )
        self.threshold = np.uint64(ratio * 2**32)
        scales = self.param.dropout_param.scale_train
        self.scale = self.dtype.type(1 / (1 - ratio) if scales else 1)
        self.samples = self.phase == pb.TRAIN or self.param.dropout_param.sample_weights_test
        self.factor = self.dtype.type(1 if scales else 1 - ratio)
        """What values are multiplied by where none is set to zero."""
        self.key = self.place = np.uint64(0)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if top[0] is not bottom[0]:
            top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.samples:
            self.key = draw_key(self.random())
            self.place = np.uint64(self.context.place.number * bottom[0].count)
        self._run(bottom[0].data, top[0].data)

    def draws_of_pass(self) -> int:
        return 1 if self.samples else 0

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self._run(top[0].diff, bottom[0].diff)

    def _run(self, source: np.ndarray, target: np.ndarray) -> None:
        """Applies the mask and the scale: forward and backward are the same linear map."""
        x, y = source.reshape(-1), target.reshape(-1)
        in_place = source is target
        if not self.samples:
            if self.factor != 1:
                np.multiply(x, self.factor, out=y)
            elif not in_place:
                y[:] = x
        elif in_place:
            spread(_apply_in_place, y.size, 4, y, self.key, self.threshold, self.scale, self.place)
        else:
            spread(_apply, y.size, 4, x, y, self.key, self.threshold, self.scale, self.place)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return list(bottom) if self.phase == pb.TEST else super().bounds(bottom, top)

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if self.samples:
            raise self.not_in_onnx("Dropout that is random in TEST (sample_weights_test)")
        return [linear(graph, inputs[0], float(self.factor))]
