"""Upsample: enlarges images: repeats each pixel, or writes each value to the position where a MAX Pooling found it.

One bottom: each pixel becomes ``scale`` x ``scale`` pixels (YOLO); dx = the sum of their diffs.
Two bottoms, values and their positions (the second top of a MAX Pooling): each value is written to its position, the
rest is 0 (SegNet); dx = the diff at that position. The image is then upsample_h x upsample_w if given, else the size
of the bottom times ``scale`` (or scale_h, scale_w; 2 by default), less one row or column with pad_out_h or pad_out_w.

Ref: Redmon, Farhadi 2018, YOLOv3; Badrinarayanan, Kendall, Cipolla 2017, SegNet
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np

from sslnet.blob import Blob
from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.bounds import ChannelBox
from sslnet.layers.onnx import OnnxGraph


@final
class Upsample(Layer):
    TYPE: ClassVar[str] = "Upsample"
    KIND: ClassVar[str] = "pooling"
    CHANNELS: ClassVar[str] = "removed in bottom and top together"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.upsample_param
        for name in ("scale", "scale_h", "scale_w"):
            if param.HasField(name) and getattr(param, name) < 1:
                raise self.error(f"{name} must be at least 1", "upsample_param", name)
        for name in ("scale_h", "scale_w", "pad_out_h", "pad_out_w", "upsample_h", "upsample_w"):
            if len(bottom) == 1 and param.HasField(name):
                raise self.error(f"{name} is for two bottoms, values and their places", "upsample_param", name)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        x = bottom[0]
        if x.num_axes != 4:
            raise self.shape_error(f'Upsample needs a bottom of 4 axes (N, C, H, W): "{x.name}" has shape {x.shape}')
        if len(bottom) == 2:
            self._reshape_by_places(x, bottom[1], top[0])
            return
        scale = self.param.upsample_param.scale
        top[0].reshape(x.num, x.channels, scale * x.height, scale * x.width)
        planes = x.count_of(0, 2)
        self.pixels = (planes, x.height, 1, x.width, 1)
        self.copies = (planes, x.height, scale, x.width, scale)

    def _reshape_by_places(self, x: Blob, places: Blob, y: Blob) -> None:
        param = self.param.upsample_param
        if places.shape != x.shape:
            raise self.shape_error(f"values and places must have one shape: {x.shape} and {places.shape}")
        scale = param.scale if param.HasField("scale") else 2
        height = param.upsample_h or x.height * (param.scale_h or scale) - param.pad_out_h
        width = param.upsample_w or x.width * (param.scale_w or scale) - param.pad_out_w
        if min(height, width) < 1:
            raise self.shape_error(f"nothing is left of the image: {height} x {width}", "upsample_param")
        y.reshape(x.num, x.channels, height, width)
        self.fold, self.out_fold = (x.count_of(0, 2), x.count_of(2)), (x.count_of(0, 2), height * width)

    def bounds(self, bottom: Sequence[ChannelBox], top: Blobs) -> list[ChannelBox]:
        return [bottom[0].with_zero() if len(bottom) > 1 else bottom[0]]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom) == 1:
            top[0].data.reshape(self.copies)[...] = bottom[0].data.reshape(self.pixels)
            return
        y = top[0].data.reshape(self.out_fold)
        y[...] = 0
        np.put_along_axis(y, self._places(bottom), bottom[0].data.reshape(self.fold), axis=1)

    def allow_force_backward(self, index: int) -> bool:
        return index == 0

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return index > 0

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if len(bottom) > 1 and propagate_down[1]:
            raise self.run_error("Upsample has no gradient for the places")
        if not propagate_down[0]:
            return
        if len(bottom) == 1:
            np.sum(
                top[0].diff.reshape(self.copies), axis=(2, 4), keepdims=True, out=bottom[0].diff.reshape(self.pixels)
            )
        else:
            dy = top[0].diff.reshape(self.out_fold)
            bottom[0].diff.reshape(self.fold)[...] = np.take_along_axis(dy, self._places(bottom), axis=1)

    def _places(self, bottom: Blobs) -> np.ndarray:
        places, pixels = bottom[1].data.reshape(self.fold), self.out_fold[1]
        good = (places >= 0) & (places < pixels)
        if not good.all():
            raise self.run_error(
                f"place {places[~good][0]:g} is not in an image of {pixels} pixels",
                hint="upsample_h and upsample_w must be the size that was pooled",
            )
        return places.astype(np.int64)

    # -- compaction: channels are independent; with positions they are removed from both bottoms -----------------------

    SHRINKS: ClassVar[bool] = True

    def constant_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_and.reduce(bottom)]

    def zeroed_channels(self, zero: list[BoolVector], constant: list[BoolVector]) -> list[BoolVector]:
        return [zero[0]]

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [top[0] for _ in bottom_constant]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.logical_or.reduce(bottom)]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        if len(bottom) > 1:
            raise self.not_in_onnx("Upsample by the places of a MAX pooling")
        scales = [1, 1, *(after / before for before, after in zip(bottom[0].shape[2:], top[0].shape[2:]))]
        options: dict[str, Any] = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        return [graph.node("Resize", [inputs[0], "", graph.constant(scales)], **options)]
