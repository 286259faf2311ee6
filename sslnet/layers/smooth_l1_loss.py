"""SmoothL1Loss: squared for small differences, linear for large ones; with weights of each value (Fast R-CNN).

loss = sum of v s(w (a - b)) / normaliser, s(d) = (sigma d)^2 / 2 where |d| < 1 / sigma^2, else |d| - 1 / (2 sigma^2);
da = w v s'(w (a - b)) * weight / normaliser, db = -da. The normaliser is the number of images N, or what loss_param says:
FULL and VALID divide by the predictions without their channels, N H W.

bottom  predictions a, targets b of one shape (N, C, ...); optionally inside weights w, then outside weights v, else 1
top     the loss; optionally (R-FCN) its sum over the channels, (N, 1, ...), which is not divided and has no gradient

Ref: Girshick 2015, Fast R-CNN; Ren et al. 2015, Faster R-CNN
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs
from sslnet.layers.loss import Loss


def check_weighted_pair(layer: Loss, bottom: Blobs) -> None:
    """Raises ShapeError unless all bottoms have as many values as the first."""
    for blob in bottom[1:]:
        if blob.count != bottom[0].count or blob.num != bottom[0].num:
            raise layer.shape_error(
                f'all bottoms must have one shape: "{bottom[0].name}" {bottom[0].shape}, "{blob.name}" {blob.shape}'
            )


def smooth(difference: np.ndarray, sigma: float) -> np.ndarray:
    """s of each value."""
    size, square = np.abs(difference), sigma * sigma
    return np.asarray(np.where(size < 1 / square, 0.5 * square * difference**2, size - 0.5 / square))


def slope(difference: np.ndarray, sigma: float) -> np.ndarray:
    """The derivative of s at each value."""
    square = sigma * sigma
    return np.asarray(np.where(np.abs(difference) < 1 / square, square * difference, np.sign(difference)))


class SmoothL1(Loss, ABC):
    """Both layers of this loss, which differ in what divides it unless loss_param says so."""

    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 4)
    TOPS: ClassVar[tuple[int, int | None]] = (1, 2)
    DIVISOR: ClassVar[Any]

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.sigma = float(self.param.smooth_l1_loss_param.sigma)
        if self.sigma <= 0:
            raise self.error(f"sigma must be above 0, not {self.sigma:g}", "smooth_l1_loss_param", "sigma", value=True)
        self.mode = self.normalization(self.DIVISOR)

    def allow_force_backward(self, index: int) -> bool:
        return index < 2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        check_weighted_pair(self, bottom)
        top[0].reshape(())
        if len(top) > 1:
            top[1].reshape(bottom[0].num, 1, *bottom[0].shape[2:])

    def _divisor(self, bottom: Blobs) -> float:
        places = bottom[0].num * bottom[0].count_of(2)
        inner = bottom[0].count_of(2)
        return self.divisor(self.mode, outer=bottom[0].num, inner=inner, valid=places)

    def _difference(self, bottom: Blobs) -> np.ndarray:
        a, b = bottom[0].data, bottom[1].data.reshape(bottom[0].shape)
        difference: np.ndarray = a - b
        return difference * bottom[2].data.reshape(a.shape) if len(bottom) > 2 else difference

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        loss = smooth(self._difference(bottom), self.sigma)
        if len(bottom) > 3:
            loss = loss * bottom[3].data.reshape(loss.shape)
        top[0].data[...] = loss.sum(dtype=np.float64) / self._divisor(bottom)
        if len(top) > 1:
            first = bottom[0]
            top[1].data[...] = loss.reshape(first.num, first.channels, *first.shape[2:]).sum(axis=1, keepdims=True)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if not any(propagate_down[:2]):
            return
        gradient = slope(self._difference(bottom), self.sigma) * (float(top[0].diff) / self._divisor(bottom))
        for blob in bottom[2:]:
            gradient = gradient * blob.data.reshape(gradient.shape)
        for index, sign in enumerate((1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * gradient.reshape(bottom[index].shape)


@final
class SmoothL1Loss(SmoothL1):
    TYPE: ClassVar[str] = "SmoothL1Loss"
    DIVISOR: ClassVar[Any] = pb.LossParameter.BATCH_SIZE


@final
class SmoothL1LossOHEM(SmoothL1):
    TYPE: ClassVar[str] = "SmoothL1LossOHEM"
    DIVISOR: ClassVar[Any] = pb.LossParameter.VALID
