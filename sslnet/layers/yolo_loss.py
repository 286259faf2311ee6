"""YoloLoss: the base of YOLO's losses, whose gradient is a difference of each value that the forward pass computes."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss
from sslnet.layers.yolo import check_labels, check_map


class YoloLoss(Loss, ABC):
    """Base of RegionLoss and Yolov3: ``forward`` writes ``difference``, d; the gradient is d / N."""

    BLOCK: ClassVar[str]
    """The message with the layer's parameters, which has num and num_class."""

    @property
    def settings(self) -> Any:
        """The layer's parameters."""
        return getattr(self.param, self.BLOCK)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        check_map(self, bottom[0], self.settings.num, 5 + self.settings.num_class)
        check_labels(self, bottom[1], bottom[0].num)
        top[0].reshape(())
        self.difference = np.zeros(bottom[0].shape, self.dtype)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[1]:
            hint = "propagate_down: false for the labels"
            raise self.run_error(f"{self.TYPE} has no gradient for objects", hint=hint)
        if propagate_down[0]:
            bottom[0].diff[...] = self.difference * (float(top[0].diff) / max(1, bottom[0].num))
