"""Resizing of images by the fields of Caffe's forks: resize_param (SSD, NVIDIA, Intel), random_resize_param and
random_aspect_ratio_param (Intel).

An image is (C, H, W), uint8 or float32, and stays so. Pixel centres are at half coordinates and the border is repeated, as
in OpenCV's resize; bilinear results for bytes are OpenCV's, those of the other modes may differ by one from it.

Ref: Liu et al. 2016, "SSD: single shot multibox detector" (its implementation); OpenCV, imgproc, resize
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import SslnetError
from sslnet.sources.geometry import MOST_PIXELS, ImagePart
from sslnet.sources.images import resize_image

Fail = Callable[..., SslnetError]
WARP, FIT_SMALL_SIZE, FIT_LARGE_SIZE_AND_PAD = 1, 2, 3
LINEAR, AREA, NEAREST, CUBIC, LANCZOS4 = 1, 2, 3, 4, 5
MOST_SIDE = 1 << 14
"""Maximum height and width of a resized image in pixels."""
MOST_ATTEMPTS = 10
"""Maximum number of sizes that are tried for a part of an image."""
DRAWS = 4 + 3 * MOST_ATTEMPTS
"""Number of random numbers of an image: interpolation, size, row, column; area, shape and orientation of each attempt."""


class Resizing:
    """The resizing that transform_param asks for.

    param  a TransformationParameter
    train  whether sizes are random
    error  creates the error about a field of transform_param: error(message, *field)
    """

    def __init__(self, param: pb.TransformationParameter, *, train: bool, error: Fail) -> None:
        self._resize = param.resize_param[0] if param.resize_param else None
        self._size = param.random_resize_param if param.HasField("random_resize_param") else None
        self._part = param.random_aspect_ratio_param if param.HasField("random_aspect_ratio_param") else None
        self._crop = int(param.crop_size)
        self._train = train
        self._check(param, error)

    @property
    def active(self) -> bool:
        """Whether any image is resized."""
        return any(block is not None for block in (self._resize, self._size, self._part))

    @property
    def random(self) -> bool:
        """Whether the result depends on the random numbers."""
        blocks = [self._resize, *(each.resize_param for each in (self._size, self._part) if each is not None)]
        several = any(block is not None and len(block.interp_mode) > 1 for block in blocks)
        return self._train and (several or self._size is not None or self._part is not None)

    @property
    def fixed(self) -> tuple[int, int] | None:
        """(height, width) of all results; None where they differ from image to image."""
        param = self._resize
        if param is None or param.resize_mode == FIT_SMALL_SIZE or self._size is not None or self._part is not None:
            return None
        return int(param.height), int(param.width)

    def __call__(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Resizes an image (C, H, W). draws: (DRAWS) random numbers in [0, 1)"""
        pick = float(draws[0]) if self._train else 0.0
        if self._size is not None:
            image = self._random_size(image, float(draws[1]), pick)
        elif self._part is not None:
            image = self._random_part(image, draws, pick)
        return apply_resize(image, self._resize, pick) if self._resize is not None else image

    def _random_size(self, image: np.ndarray, draw: float, pick: float) -> np.ndarray:
        param = self._size
        assert param is not None
        low = param.min_size or min(image.shape[1:])
        high = max(low, param.max_size or max(image.shape[1:]))
        size = low + int(draw * (high - low + 1)) if self._train else (low + high) // 2
        return resize_shorter_side(image, size, chosen_mode(param.resize_param, pick))

    def _random_part(self, image: np.ndarray, draws: np.ndarray, pick: float) -> np.ndarray:
        param = self._part
        assert param is not None
        mode = chosen_mode(param.resize_param, pick)
        box = None
        if self._train:
            height, width = image.shape[1:]
            box = _draw_part(param, height, width, draws[4:].reshape(MOST_ATTEMPTS, 3), draws[2:4])
        if box is None:
            return resize_shorter_side(image, self._crop, mode)
        part = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
        return interpolate(part, self._crop, self._crop, mode)

    def _check(self, param: pb.TransformationParameter, error: Fail) -> None:
        if self._resize is not None:
            check_resize_param(self._resize, lambda message, *field: error(message, "resize_param", 0, *field))
            if self._resize.resize_mode == FIT_SMALL_SIZE and not (param.crop_size or param.crop_h):
                raise error(
                    "resize_mode FIT_SMALL_SIZE needs crop_size: the images have different sizes", "resize_param", 0
                )
        for name in ("random_resize_param", "random_aspect_ratio_param"):
            if not param.HasField(name):
                continue
            if not param.crop_size:
                raise error(f"{name} needs crop_size: the images have different sizes", name)
            for field, _ in getattr(param, name).resize_param.ListFields():
                if field.name not in ("interp_mode", "prob"):
                    raise error(f"{field.name} has no effect in {name}", name, "resize_param", field.name)
        low, high = param.random_resize_param.min_size, param.random_resize_param.max_size
        if param.HasField("random_resize_param") and (max(low, high) > MOST_SIDE or (high and low > high)):
            message = f"min_size <= max_size <= {MOST_SIDE} must hold, not {low} and {high}"
            raise error(message, "random_resize_param")
        if param.HasField("random_resize_param") and low and low < param.crop_size:
            raise error(
                f"min_size {low} is smaller than crop_size {param.crop_size}", "random_resize_param", "min_size"
            )
        part = param.random_aspect_ratio_param
        if param.HasField("random_aspect_ratio_param"):
            if not 0 < part.min_area_ratio <= part.max_area_ratio <= 1:
                raise error("0 < min_area_ratio <= max_area_ratio <= 1 must hold", "random_aspect_ratio_param")
            if not 0 < part.aspect_ratio_change <= 1:
                message = f"aspect_ratio_change must be above 0 and at most 1, not {part.aspect_ratio_change:g}"
                raise error(message, "random_aspect_ratio_param", "aspect_ratio_change")


def check_resize_param(param: Any, error: Fail) -> None:
    """Checks a ResizeParameter; raises what ``error(message, *field)`` makes."""
    for field in ("height", "width"):
        if not 0 < getattr(param, field) <= MOST_SIDE:
            raise error(f"{field} must be from 1 to {MOST_SIDE}, not {getattr(param, field)}", field)


def chosen_mode(param: Any, pick: float) -> int:
    """The interpolation of a ResizeParameter: one of its interp_mode, by a random number in [0, 1); default LINEAR."""
    modes = param.interp_mode
    return int(modes[min(int(pick * len(modes)), len(modes) - 1)]) if modes else LINEAR


def apply_resize(image: np.ndarray, param: Any, pick: float = 0.0) -> np.ndarray:
    """Resizes (C, H, W) as a checked ResizeParameter says.

    pick  random number in [0, 1) that chooses between several interp_mode
    """
    mode, height, width = chosen_mode(param, pick), int(param.height), int(param.width)
    if param.resize_mode == WARP:
        return interpolate(image, height, width, mode)
    inner = fitted_size(image.shape[1:], height, width, param.resize_mode == FIT_SMALL_SIZE)
    result = interpolate(image, *inner, mode)
    return result if param.resize_mode == FIT_SMALL_SIZE else _padded(result, height, width, param)


def fitted_size(size: Sequence[int], height: int, width: int, covers: bool) -> tuple[int, int]:
    """(height, width) of an image of this size that keeps its shape: the smallest that covers height x width, or the largest
    that fits into it; at least one pixel."""
    aspect = np.float32(size[1]) / np.float32(size[0])
    wider = aspect > np.float32(width) / np.float32(height)
    by_width = (not covers and wider) or (covers and aspect < np.float32(width) / np.float32(height))
    if by_width:
        return min(max(1, math.floor(np.float32(width) / aspect)), MOST_PIXELS // width), width
    return height, min(max(1, math.floor(aspect * np.float32(height))), MOST_PIXELS // height)


def resize_shorter_side(image: np.ndarray, size: int, mode: int) -> np.ndarray:
    """Resizes (C, H, W) so that the shorter side has ``size`` pixels and the image keeps its shape, rounded down."""
    height, width = image.shape[1:]
    other = max(size, min(MOST_PIXELS // size, size * max(height, width) // min(height, width)))
    if height < width:
        return interpolate(image, size, other, mode)
    return interpolate(image, other, size, mode)


def interpolate(image: np.ndarray, height: int, width: int, mode: int) -> np.ndarray:
    """Resizes (C, H, W) to (C, height, width).  mode: LINEAR, AREA, NEAREST, CUBIC or LANCZOS4"""
    if image.shape[1:] == (height, width):
        return image
    if mode == NEAREST:
        rows, columns = (
            np.minimum(np.floor(np.arange(new) * (old / new)).astype(np.int64), old - 1)
            for new, old in zip((height, width), image.shape[1:])
        )
        return np.ascontiguousarray(image[:, rows[:, None], columns])
    smaller = height <= image.shape[1] and width <= image.shape[2]
    if mode == LINEAR and image.dtype == np.uint8:
        return resize_image(image, height, width)
    weights = {CUBIC: _cubic, LANCZOS4: _lanczos}.get(mode, _linear)
    if mode == AREA:
        weights = _area if smaller else _area_enlarged
    values = _combined(image.astype(np.float32), *weights(image.shape[1], height), axis=1)
    values = _combined(values, *weights(image.shape[2], width), axis=2)
    if image.dtype == np.uint8:
        result: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return result
    return values.astype(image.dtype)


Taps = tuple[np.ndarray, np.ndarray]
"""For each new pixel, the first old pixel that it reads, and the weights of that one and those behind it: (new), (new, taps).
Old pixels outside the image are those at its border."""


def _combined(image: np.ndarray, first: np.ndarray, weights: np.ndarray, *, axis: int) -> np.ndarray:
    """The weighted sums of pixels along an axis."""
    size = image.shape[axis]
    result = np.zeros((*image.shape[:axis], len(first), *image.shape[axis + 1 :]), np.float32)
    for k in range(weights.shape[1]):
        part = np.take(image, np.clip(first + k, 0, size - 1), axis=axis)
        part *= weights[:, k].astype(np.float32).reshape(-1, *([1] * (image.ndim - axis - 1)))
        result += part
    return result


def _places(size: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """For each new pixel, the old pixel before it and the distance from that pixel."""
    place = (np.arange(new) + 0.5) * (size / new) - 0.5
    whole = np.floor(place)
    return whole.astype(np.int64), place - whole


def _linear(size: int, new: int) -> Taps:
    whole, part = _places(size, new)
    return whole, np.stack([1 - part, part], axis=1)


def _cubic(size: int, new: int) -> Taps:
    whole, t = _places(size, new)
    a = -0.75

    def inner(x: np.ndarray) -> np.ndarray:
        return np.asarray(((a + 2) * x - (a + 3)) * x * x + 1)

    def outer(x: np.ndarray) -> np.ndarray:
        return np.asarray(((a * x - 5 * a) * x + 8 * a) * x - 4 * a)

    taps = np.stack([outer(t + 1), inner(t), inner(1 - t), outer(2 - t)], axis=1)
    return whole - 1, taps


def _lanczos(size: int, new: int) -> Taps:
    whole, t = _places(size, new)
    x = t[:, None] - np.arange(-3, 5)
    taps = np.sinc(x) * np.sinc(x / 4)
    return whole - 3, taps / taps.sum(axis=1, keepdims=True)


def _area(size: int, new: int) -> Taps:
    """Each new pixel is the mean of what it covers."""
    scale = size / new
    begins = np.arange(new) * scale
    first = np.floor(begins).astype(np.int64)
    pixels = first[:, None] + np.arange(math.ceil(scale) + 1)
    covered = np.minimum((begins + scale)[:, None], pixels + 1) - np.maximum(begins[:, None], pixels)
    covered = np.where(pixels < size, np.maximum(covered, 0), 0)
    return first, covered / covered.sum(axis=1, keepdims=True)


def _area_enlarged(size: int, new: int) -> Taps:
    """Bilinear between the pixels whose areas a new pixel touches."""
    scale, step = size / new, new / size
    whole = np.floor(np.arange(new) * scale).astype(np.int64)
    part = (np.arange(new) + 1) - (whole + 1) * step
    part = np.where(part <= 0, 0.0, part - np.floor(part))
    return whole, np.stack([1 - part, part], axis=1)


def _padded(image: np.ndarray, height: int, width: int, param: Any) -> np.ndarray:
    """The image in the middle of height x width pixels."""
    top, left = (height - image.shape[1]) // 2, (width - image.shape[2]) // 2
    sides = [(0, 0), (top, height - image.shape[1] - top), (left, width - image.shape[2] - left)]
    if param.pad_mode == pb.ResizeParameter.MIRRORED:
        return np.pad(image, sides, mode="reflect" if min(image.shape[1:]) > 1 else "edge")
    if param.pad_mode == pb.ResizeParameter.REPEAT_NEAREST:
        return np.pad(image, sides, mode="edge")
    result = np.empty((len(image), height, width), image.dtype)
    values = np.array(param.pad_value or [0.0])
    if image.dtype == np.uint8:
        values = np.clip(np.rint(values), 0, 255)
    result[...] = np.resize(values, len(image))[:, None, None]
    result[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    return result


def _draw_part(param: Any, height: int, width: int, sizes: np.ndarray, place: np.ndarray) -> ImagePart | None:
    """A part of random size and shape; None if no drawn size fits. sizes: (attempts, 3) in [0, 1); place: (2) in [0, 1)"""
    low, high = param.aspect_ratio_change, 1 / param.aspect_ratio_change
    for area_draw, shape_draw, turn in sizes[: param.max_attempt].tolist():
        area = height * width * (param.min_area_ratio + area_draw * (param.max_area_ratio - param.min_area_ratio))
        change = low + shape_draw * (high - low)
        rows, columns = int(math.sqrt(area) * change), int(math.sqrt(area) / change)
        if turn < 0.5:
            rows, columns = columns, rows
        if 0 < rows <= height and 0 < columns <= width:
            return ImagePart(int(place[0] * (height - rows + 1)), int(place[1] * (width - columns + 1)), rows, columns)
    return None
