"""The transformation of images with boxes, as SSD's: distort, expand, take a part, resize, then crop and mirror.

    distort_param  TRAIN: brightness, contrast, saturation, hue, order of the channels; pixels stay from 0 to 255
    expand_param   TRAIN: the image at a random place of a larger one of the mean's colour
    batch_sampler  a random part (``sslnet.sources.box_sampler``)
    resize_param   WARP, FIT_LARGE_SIZE_AND_PAD, FIT_SMALL_SIZE (``sslnet.sources.resizing``); of several the first
    the rest of transform_param, by ``DataTransformer``: crop, mirror, brightness, contrast, mean, scale

Boxes follow the image; emit_constraint says which of them a part keeps.

Ref: Liu et al. 2016, SSD, section 2.2 and its implementation
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, SslnetError
from sslnet.sources.annotated import CORNERS, AnnotatedImage, mirrored, project
from sslnet.sources.box_sampler import draw_part, jitter_part
from sslnet.sources.colors import turn_hues
from sslnet.sources.geometry import MOST_PIXELS
from sslnet.sources.resizing import FIT_SMALL_SIZE, apply_resize, check_resize_param, fitted_size
from sslnet.sources.transformer import DataTransformer

Fail = Callable[..., SslnetError]
UNUSABLE = (
    "random_resized_crop",
    "resize_shorter",
    "rotation",
    "pad",
    "random_resize_param",
    "random_aspect_ratio_param",
)
"""Fields of transform_param that move pixels in ways that boxes do not follow."""


class BoxTransformer:
    """The transformation of images and boxes of one layer.

    transform  its TransformationParameter
    samplers   BatchSamplers
    jitter     YOLO's jitter, in place of samplers; 0: none
    shape      (C, H, W) of the first record
    train      whether the phase is TRAIN
    finish     makes the DataTransformer of a TransformationParameter and a shape
    fail       creates the error about a field of transform_param
    """

    def __init__(
        self,
        transform: pb.TransformationParameter,
        samplers: Sequence[Any],
        jitter: float,
        shape: Sequence[int],
        *,
        train: bool,
        finish: Callable[[pb.TransformationParameter, Sequence[int]], DataTransformer],
        fail: Fail,
    ) -> None:
        self._param, self._samplers, self._jitter, self._train = transform, list(samplers), jitter, train
        _check(transform, fail)
        rest = pb.TransformationParameter()
        rest.CopyFrom(transform)
        for name in ("resize_param", "distort_param", "expand_param", "emit_constraint"):
            rest.ClearField(name)
        self._resize = transform.resize_param[0] if transform.resize_param else None
        self._emit = transform.emit_constraint if transform.HasField("emit_constraint") else None
        self.channels = int(shape[0])
        self._size = tuple(shape[1:]) if self._resize is None else (int(self._resize.height), int(self._resize.width))
        self.rest = finish(rest, (self.channels, *self._size))
        """Crop, mirror, mean and scale."""
        self._fill = _fill(transform, self.channels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it makes."""
        return self.rest.shape

    def __call__(self, image: AnnotatedImage, random: np.random.Generator, out: np.ndarray) -> np.ndarray:
        """Transforms an image; returns its objects.  [overwrites out]

        out     ``self.shape``
        raises  DataError for an image of another number of channels, or another size where nothing resizes it
        """
        pixels, objects = image.pixels, image.objects
        if len(pixels) != self.channels:
            raise DataError(f"has {len(pixels)} channels, but the first one {self.channels}")
        if self._train and self._param.HasField("distort_param"):
            pixels = distort(pixels, self._param.distort_param, random, self.rest.order)
        if self._train and self._param.HasField("expand_param"):
            pixels, objects = self._expand(pixels, objects, random)
        pixels, objects = self._take_part(pixels, objects, random)
        pixels, objects = self._resized(pixels, objects, random)
        draws = self.rest.draw(random, 1)
        self.rest(pixels[None], out[None], draws)
        objects = self._cropped(objects, pixels.shape[1:], draws[0])
        return mirrored(objects) if self.rest.mirrors(draws)[0] else objects

    def _expand(
        self, pixels: np.ndarray, objects: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        param = self._param.expand_param
        draws = random.random(4)
        if draws[0] > param.prob or param.max_expand_ratio - 1 < 1e-2:
            return pixels, objects
        ratio = 1 + draws[1] * (param.max_expand_ratio - 1)
        channels, height, width = pixels.shape
        rows, columns = int(height * ratio), int(width * ratio)
        if rows * columns > MOST_PIXELS:
            return pixels, objects
        top, left = int(draws[2] * (rows - height)), int(draws[3] * (columns - width))
        larger = np.empty((channels, rows, columns), np.uint8)
        larger[...] = self._fill[:, None, None]
        larger[:, top : top + height, left : left + width] = pixels
        part = np.array([-left / width, -top / height, (columns - left) / width, (rows - top) / height])
        return larger, project(objects, part, self._emit)

    def _take_part(
        self, pixels: np.ndarray, objects: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._samplers:
            part = draw_part(self._samplers, objects[:, CORNERS], random)
        elif self._jitter and self._train:
            keep = self._resize is not None and self._resize.resize_mode == pb.ResizeParameter.FIT_LARGE_SIZE_AND_PAD
            part = jitter_part(self._jitter, keep, random)
        else:
            part = None
        if part is None:
            return pixels, objects
        height, width = pixels.shape[1:]
        scaled = np.clip(part, 0, 1) * np.array([width, height, width, height])
        left, top = int(scaled[0]), int(scaled[1])
        columns, rows = int(scaled[2] - scaled[0]), int(scaled[3] - scaled[1])
        if columns < 1 or rows < 1:
            return pixels, objects
        return pixels[:, top : top + rows, left : left + columns], project(objects, part, self._emit)

    def _resized(
        self, pixels: np.ndarray, objects: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        param = self._resize
        if param is None:
            return pixels, objects
        size = pixels.shape[1:]
        resized = apply_resize(np.ascontiguousarray(pixels), param, float(random.random()) if self._train else 0.0)
        if param.resize_mode != pb.ResizeParameter.FIT_LARGE_SIZE_AND_PAD:
            return resized, objects
        rows, columns = fitted_size(size, int(param.height), int(param.width), False)
        top, left = (param.height - rows) // 2, (param.width - columns) // 2
        moved = objects.copy()
        factors = np.array([columns, rows, columns, rows])
        whole = np.array([param.width, param.height] * 2)
        moved[:, CORNERS] = (objects[:, CORNERS] * factors + np.array([left, top, left, top])) / whole
        return resized, moved

    def _cropped(self, objects: np.ndarray, size: Sequence[int], draws: np.ndarray) -> np.ndarray:
        """The objects of the crop that DataTransformer takes of an image of this size."""
        rows, columns = self.shape[1:]
        if tuple(size) == (rows, columns):
            return project(objects, np.array([0.0, 0.0, 1.0, 1.0]), self._emit)
        (top, left), _ = self.rest.place(size, draws)
        height, width = size
        part = np.array([left / width, top / height, (left + columns) / width, (top + rows) / height])
        objects = project(objects, part, self._emit)
        param = self._resize
        if param is not None and param.resize_mode == FIT_SMALL_SIZE and param.height_scale and param.width_scale:
            objects = objects.copy()
            scale = np.array([columns / param.width_scale, rows / param.height_scale] * 2)
            objects[:, CORNERS] *= scale
        return objects


def distort(pixels: np.ndarray, param: Any, random: np.random.Generator, order: int) -> np.ndarray:
    """Changes the colours of an image (C, H, W) uint8, C 1 or 3; saturation, hue and the order of channels only of C 3.

    order  of the channels: pb.TransformationParameter.BGR or RGB
    """
    draws = random.random(12)
    values = pixels.astype(np.float32)

    def clipped(changed: np.ndarray) -> np.ndarray:
        return np.clip(changed, 0, 255, out=changed)

    def contrast() -> None:
        if draws[3] < param.contrast_prob:
            factor = param.contrast_lower + draws[4] * (param.contrast_upper - param.contrast_lower)
            clipped(np.multiply(values, np.float32(factor), out=values))

    if draws[1] < param.brightness_prob:
        clipped(np.add(values, np.float32((2 * draws[2] - 1) * param.brightness_delta), out=values))
    if draws[0] > 0.5:
        contrast()
    if len(values) == 3:
        if draws[5] < param.saturation_prob:
            factor = param.saturation_lower + draws[6] * (param.saturation_upper - param.saturation_lower)
            _saturate(values, factor)
        if draws[7] < param.hue_prob:
            red = 0 if order == pb.TransformationParameter.RGB else 2
            turn_hues(values, red, (2 * draws[8] - 1) * param.hue_delta / 180)
    if draws[0] <= 0.5:
        contrast()
    result: np.ndarray = np.rint(values).astype(np.uint8)
    if len(values) == 3 and draws[9] < param.random_order_prob:
        result = np.ascontiguousarray(result[random.permutation(3)])
    return result


def _saturate(values: np.ndarray, factor: float) -> None:
    """Multiplies the saturation of the HSV model, at most 1.  [overwrites values]"""
    top = values.max(axis=0)
    chroma = top - values.min(axis=0)
    factors = np.minimum(np.float32(factor), np.divide(top, chroma, out=np.ones_like(top), where=chroma > 0))
    np.subtract(top, (top - values) * factors, out=values)
    np.clip(values, 0, 255, out=values)


def _fill(param: pb.TransformationParameter, channels: int) -> np.ndarray:
    """The bytes (channels) around an expanded image: the mean, 0 without one."""
    mean = np.array(param.mean_value or [0.0])
    return np.resize(np.clip(mean, 0, 255), channels).astype(np.uint8)


def _check(param: pb.TransformationParameter, fail: Fail) -> None:
    """Checks the fields that this transformation has beyond DataTransformer's; raises what ``fail`` makes."""
    for name in UNUSABLE:
        given = bool(getattr(param, name)) if name in ("resize_shorter", "rotation", "pad") else param.HasField(name)
        if given:
            raise fail(f"{name} is not for images with boxes", name)
    for resize in param.resize_param[:1]:
        check_resize_param(resize, lambda message, *field: fail(message, "resize_param", 0, *field))
        if resize.resize_mode == FIT_SMALL_SIZE and not (param.crop_size or param.crop_h):
            raise fail("resize_mode FIT_SMALL_SIZE needs crop_size: the images have different sizes", "resize_param", 0)
    distortion = param.distort_param
    for name in ("contrast", "saturation"):
        low, high = getattr(distortion, f"{name}_lower"), getattr(distortion, f"{name}_upper")
        if not 0 <= low <= high < np.inf:
            raise fail(
                f"0 <= {name}_lower <= {name}_upper must hold, not {low:g} and {high:g}",
                "distort_param",
                f"{name}_lower",
            )
    for name in ("brightness", "hue"):
        if not 0 <= getattr(distortion, f"{name}_delta") < np.inf:
            raise fail(f"{name}_delta must be 0 or more", "distort_param", f"{name}_delta")
    if not 1 <= param.expand_param.max_expand_ratio < np.inf:
        raise fail("max_expand_ratio must be at least 1", "expand_param", "max_expand_ratio")
    if param.HasField("expand_param") and param.mean_file:
        raise fail("expand_param needs mean_value: a mean image is of one size", "mean_file")
