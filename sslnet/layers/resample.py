"""Resample: images of another size, in the manner of FlowNet 2: NEAREST, LINEAR or CUBIC, smoothed when they shrink.

    y[i] = sum over k of x[k] f(s (p_i - k)) / sum over k of f(s (p_i - k)),  along each of the two axes

p_i = i r + r' / 2 - 1 / 2 for the ratio r of the sizes of the axis and r' of the other one (the authors' places, exact where
both are equal); f is the triangle, or the cubic with a = -0.5; s is 1 / r with antialias where an image shrinks, else 1.

bottoms  images (N, C, H, W); optionally one whose height and width are taken, instead of height and width
top      (N, C, height, width)

Ref: Ilg et al. 2017, "FlowNet 2.0" (its implementation, which has no gradient; here it is that of the formula)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers.base import Blobs, BoolVector, Layer


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(0, 1 - np.abs(x)))


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    inner, outer = x * x * (1.5 * x - 2.5) + 1, x * (x * (-0.5 * x + 2.5) - 4) + 2
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def resampling(size: int, new: int, other: float, kind: int, antialias: bool) -> np.ndarray:
    """The matrix (new, size) of one axis.  other: the ratio of the sizes of the other axis"""
    ratio = size / new
    places = np.arange(new) * ratio + other / 2 - 0.5
    nearest = np.where(places < 0, -np.floor(0.5 - places), np.floor(places + 0.5)).astype(np.int64)
    if kind == pb.ResampleParameter.NEAREST:
        return np.asarray(np.eye(size)[np.clip(nearest, 0, size - 1)])
    shrink = 1 / ratio if antialias else 1.0
    width = 4 if kind == pb.ResampleParameter.CUBIC else 2
    reach = 2 if ratio < 1 else math.ceil(width / shrink)
    apart = places[:, None] - np.arange(size)
    function = _cubic if kind == pb.ResampleParameter.CUBIC else _triangle
    near = np.abs(nearest[:, None] - np.arange(size)) <= reach
    weights = np.where(near, function(shrink * apart), 0)
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total != 0))


@final
class Resample(Layer):
    TYPE: ClassVar[str] = "Resample"
    KIND: ClassVar[str] = "pooling"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param, x = self.param.resample_param, bottom[0]
        if x.num_axes != 4 or min(x.shape[2:]) < 1:
            raise self.shape_error(f"Resample is of images (N, C, H, W): {x.shape}")
        if param.type == pb.ResampleParameter.AREA:
            raise self.error("AREA is not supported", "resample_param", "type", value=True)
        height, width = (int(param.height), int(param.width)) if len(bottom) == 1 else bottom[1].shape[2:4]
        if min(height, width) < 1:
            raise self.error(f"height and width must be at least 1: {height} and {width}", "resample_param")
        top[0].reshape(*x.shape[:2], height, width)
        ratios = x.shape[2] / height, x.shape[3] / width
        smooth = bool(param.antialias) and max(ratios) > 1
        self._down = resampling(x.shape[2], height, ratios[1], param.type, smooth).astype(self.dtype)
        self._across = resampling(x.shape[3], width, ratios[0], param.type, smooth).astype(self.dtype)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[...] = np.matmul(np.matmul(self._down, bottom[0].data), self._across.T)

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            bottom[0].diff[...] = np.matmul(np.matmul(self._down.T, top[0].diff), self._across)
        if any(propagate_down[1:]):
            bottom[1].diff[...] = 0

    def flops(self, bottom: Blobs, top: Blobs) -> int:
        return 8 * top[0].count

    CHANNELS: ClassVar[str] = "removed in the first bottom and the top together; all of the second bottom are kept"
    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0]]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.array(top[0]), *map(np.ones_like, bottom_constant[1:])]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [bottom[0]]
