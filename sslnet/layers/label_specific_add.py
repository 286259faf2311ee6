"""LabelSpecificAdd: adds a number to the score of each label (an additive margin, before SoftmaxWithLoss); in TRAIN alone.

    y_i,label = x_i,label + bias where that is above -bias, all other scores as they are        dx = dy

With bias_base the number changes with the iteration: bias_base + (1 + bias_gamma * iteration)^bias_power - 1, from bias_min
to bias_max. In phase TEST the layer copies. ``iteration`` is counted by the forward passes.

bottoms  scores (N, classes), in place or not; labels (N)
tops     scores; optionally the number, (1)

Ref: Wang et al. 2018, "Additive margin softmax for face verification" (its implementation)
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs, Layer
from sslnet.layers.center_loss import labels_of


@final
class LabelSpecificAdd(Layer):
    TYPE: ClassVar[str] = "LabelSpecificAdd"
    KIND: ClassVar[str] = "norm"
    IN_PLACE: ClassVar[bool] = True
    DEPLOYED: ClassVar[bool] = False
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._iteration = int(self.param.label_specific_add_param.iteration)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if bottom[0].num_axes < 2 or not bottom[0].count_of(1) or bottom[1].count != bottom[0].num:
            message = f"scores are (N, classes), labels (N): {bottom[0].shape} and {bottom[1].shape}"
            raise self.shape_error(message)
        top[0].reshape_like(bottom[0])
        for blob in top[1:]:
            blob.reshape(1)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def _bias(self) -> float:
        param = self.param.label_specific_add_param
        if not param.HasField("bias_base"):
            return float(param.bias)
        base = 1 + param.bias_gamma * self._iteration
        self._iteration += 1
        try:
            value = param.bias_base + math.pow(base, param.bias_power) - 1
        except (ValueError, OverflowError, ZeroDivisionError):
            value = math.inf
        return float(min(max(value, param.bias_min), param.bias_max))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if top[0] is not bottom[0]:
            top[0].data[...] = bottom[0].data
        if self.phase == pb.TEST:
            for blob in top[1:]:
                blob.data[...] = 0
            return
        rows = top[0].data.reshape(top[0].num, top[0].count_of(1))
        labels = labels_of(self, bottom[1].data, rows.shape[1])
        bias = self._bias()
        chosen = rows[np.arange(len(rows)), labels]
        rows[np.arange(len(rows)), labels] = np.where(chosen > -bias, chosen + self.dtype.type(bias), chosen)
        for blob in top[1:]:
            blob.data[...] = bias

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[1]:
            raise self.run_error("LabelSpecificAdd has no gradient for the labels")
        if propagate_down[0] and top[0] is not bottom[0]:
            bottom[0].diff[...] = top[0].diff

    def state(self) -> bytes:
        first = int(self.param.label_specific_add_param.iteration)
        return json.dumps({"iteration": self._iteration}).encode() if self._iteration != first else b""

    def set_state(self, state: bytes) -> None:
        first = int(self.param.label_specific_add_param.iteration)
        self._iteration = int(json.loads(state)["iteration"]) if state else first
