"""PriorBox: the boxes that SSD's locations are relative to, one set around each pixel of a feature map.

For each min_size m a square of size m; with max_size M one of size sqrt(m M); for each aspect_ratio a (and 1 / a with
``flip``) a box of width m sqrt(a) and height m / sqrt(a). The centre of pixel (i, j) is ((j + offset) step_w,
(i + offset) step_h) in pixels of the image. Corners are divided by the size of the image.

bottom  the feature map (N, C, H, W), the image (N, C', H', W')
top     (1, 2, 4 P): the corners xmin, ymin, xmax, ymax of P boxes, pixel by pixel; then their variances

Ref: Liu et al. 2016, SSD
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np

from sslnet.layers.base import Blobs, BoolVector, Layer
from sslnet.layers.onnx import OnnxGraph


@final
class PriorBox(Layer):
    TYPE: ClassVar[str] = "PriorBox"
    KIND: ClassVar[str] = "result"
    BOTTOMS: ClassVar[tuple[int, int | None]] = (2, 2)
    CHANNELS: ClassVar[str] = "those of the bottoms have no effect and can be removed"
    SHRINKS: ClassVar[bool] = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.param.prior_box_param
        self._check()
        ratios = [1.0]
        for ratio in param.aspect_ratio:
            if all(abs(ratio - known) >= 1e-6 for known in ratios):
                ratios += [ratio, 1 / ratio] if param.flip else [ratio]
        self.sizes: list[tuple[float, float]] = []
        for index, least in enumerate(param.min_size):
            self.sizes.append((least, least))
            if param.max_size:
                self.sizes.append((math.sqrt(least * param.max_size[index]),) * 2)
            self.sizes += [(least * math.sqrt(ratio), least / math.sqrt(ratio)) for ratio in ratios[1:]]

    def _check(self) -> None:
        """Raises DefinitionError for sizes, ratios and variances out of range."""
        param, block = self.param.prior_box_param, "prior_box_param"
        if not param.min_size:
            raise self.error("min_size is missing", block)
        for name in ("min_size", "max_size", "aspect_ratio", "variance"):
            for index, value in enumerate(getattr(param, name)):
                if value <= 0:
                    raise self.error(f"{name} must be above 0, not {value:g}", block, name, index, value=True)
        if len(param.max_size) not in (0, len(param.min_size)):
            raise self.error(
                f"there are {len(param.max_size)} max_size for {len(param.min_size)} min_size", block, "max_size", 0
            )
        for index, (least, most) in enumerate(zip(param.min_size, param.max_size)):
            if most <= least:
                raise self.error(f"max_size must be above min_size: {most:g} and {least:g}", block, "max_size", index)
        if len(param.variance) not in (0, 1, 4):
            raise self.error(
                f"variance is given {len(param.variance)} times, not once or four times", block, "variance", 0
            )
        for one, pair in (("img_size", ("img_h", "img_w")), ("step", ("step_h", "step_w"))):
            if any(param.HasField(name) for name in pair):
                if param.HasField(one):
                    raise self.error(f"either {one} or {pair[0]} and {pair[1]}, not both", block, one)
                for name in pair:
                    if not param.HasField(name):
                        raise self.error(f"{name} is missing", block)
            for name in (one, *pair):
                if param.HasField(name) and getattr(param, name) <= 0:
                    raise self.error(f"{name} must be above 0", block, name)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if any(blob.num_axes != 4 for blob in bottom):
            raise self.shape_error(f"PriorBox needs images (N, C, H, W): {bottom[0].shape} and {bottom[1].shape}")
        count = bottom[0].height * bottom[0].width * len(self.sizes)
        top[0].reshape(1, 2, 4 * count)
        self._boxes = self._make(bottom)

    def _make(self, bottom: Blobs) -> np.ndarray:
        """(2, 4 P): corners and variances."""
        param, (height, width) = self.param.prior_box_param, bottom[0].shape[2:]
        image_h = param.img_h or param.img_size or bottom[1].height
        image_w = param.img_w or param.img_size or bottom[1].width
        step_h = param.step_h or param.step or image_h / max(1, height)
        step_w = param.step_w or param.step or image_w / max(1, width)
        y, x = np.meshgrid(
            (np.arange(height) + param.offset) * step_h, (np.arange(width) + param.offset) * step_w, indexing="ij"
        )
        boxes = np.empty((height, width, len(self.sizes), 4))
        for k, (wide, high) in enumerate(self.sizes):
            boxes[:, :, k, 0], boxes[:, :, k, 2] = (x - wide / 2) / image_w, (x + wide / 2) / image_w
            boxes[:, :, k, 1], boxes[:, :, k, 3] = (y - high / 2) / image_h, (y + high / 2) / image_h
        if param.clip:
            np.clip(boxes, 0, 1, out=boxes)
        variances = list(param.variance) or [0.1]
        numbers = np.tile(variances * (4 // len(variances)), boxes.size // 4)
        return np.stack([boxes.reshape(-1), numbers])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        top[0].data[0] = self._boxes

    def allow_force_backward(self, index: int) -> bool:
        return False

    def reads_bottom(self, index: int, in_place: bool) -> bool:
        return False

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for blob, wanted in zip(bottom, propagate_down):
            if wanted:
                blob.diff[...] = 0

    def reads_any_channel(self) -> bool:
        return True

    def needed_channels(self, top: list[BoolVector], bottom_constant: list[BoolVector]) -> list[BoolVector]:
        return [np.zeros_like(constant) for constant in bottom_constant]

    def followed_channels(self, bottom: list[BoolVector]) -> list[BoolVector]:
        return [np.ones(2, bool)]

    def to_onnx(self, graph: OnnxGraph, inputs: list[str], bottom: Blobs, top: Blobs) -> list[str]:
        return [graph.node("Identity", [graph.constant(self._boxes[None])])]
