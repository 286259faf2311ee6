"""Changes of the size and the position of images before they are cropped: resizing, random resized crops, rotation, padding
by the image itself.

An image is (C, H, W), uint8 or float32, and stays so. Resizing and rotation are Pillow's, plane by plane: bilinear;
resizing to fewer pixels averages over all of them (a triangle filter), as torchvision does with Pillow's images.

Ref: Szegedy et al. 2015, "Going deeper with convolutions", section 6 (random resized crops)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from sslnet import sslnet_pb2 as pb

ATTEMPTS = 10
"""Number of sizes that are drawn for a part of an image until one fits into it."""
MOST_PIXELS = 1 << 26
"""Maximum number of pixels of a resized image; a longer side is cut down to it."""


class ImagePart(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_box(
    height: int,
    width: int,
    areas: tuple[float, float],
    ratios: tuple[float, float],
    sizes: np.ndarray,
    place: np.ndarray,
) -> ImagePart | None:
    """A part of random size, shape and place of an image; None if no drawn size fits.

    areas   smallest and largest part of the image's area
    ratios  smallest and largest width / height; uniform in the logarithm
    sizes   (ATTEMPTS, 2) random numbers in [0, 1): area and shape of each attempt
    place   (2) random numbers in [0, 1): row and column
    """
    low, high = math.log(ratios[0]), math.log(ratios[1])
    for area_draw, shape_draw in sizes.tolist():
        area = height * width * (areas[0] + area_draw * (areas[1] - areas[0]))
        ratio = math.exp(low + shape_draw * (high - low))
        part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            top = int(place[0] * (height - part_height + 1))
            left = int(place[1] * (width - part_width + 1))
            return ImagePart(top, left, part_height, part_width)
    return None


def crop_box(
    param: pb.RandomResizedCropParameter, height: int, width: int, sizes: np.ndarray, place: np.ndarray
) -> ImagePart:
    """The part of an image that a random resized crop shows: if no drawn size fits, the largest centred part whose shape is
    allowed. sizes, place as in ``draw_box``"""
    ratios = (param.ratio_min, param.ratio_max)
    box = draw_box(height, width, (param.area_min, param.area_max), ratios, sizes, place)
    if box is not None:
        return box
    part_height, part_width = height, width
    if width / height < param.ratio_min:
        part_height = max(1, min(height, round(width / param.ratio_min)))
    elif width / height > param.ratio_max:
        part_width = max(1, min(width, round(height * param.ratio_max)))
    return ImagePart((height - part_height) // 2, (width - part_width) // 2, part_height, part_width)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes (C, H, W) to (C, height, width), with Pillow's bilinear filter."""
    if image.shape[1:] == (height, width):
        return image
    result = np.empty((len(image), height, width), image.dtype)
    for plane, target in zip(image, result):
        target[...] = _picture(plane).resize((width, height), Image.Resampling.BILINEAR)
    return result


def resize_shorter(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes (C, H, W) so that the shorter side has ``size`` pixels; the longer one keeps the shape, rounded down."""
    height, width = image.shape[1:]
    shorter, longer = min(height, width), max(height, width)
    other = max(size, min(MOST_PIXELS // size, int(size * longer / shorter)))
    return resize(image, *((size, other) if height <= width else (other, size)))


def rotate(image: np.ndarray, angle: float, fill: np.ndarray) -> np.ndarray:
    """Rotates (C, H, W) about its centre, bilinear, and keeps its size.

    angle  in degrees, counterclockwise
    fill   (C) values of the pixels that come from outside the image; rounded where the image is uint8
    """
    result = np.empty_like(image)
    for plane, target, value in zip(image, result, fill.tolist()):
        color = round(min(255.0, max(0.0, value))) if image.dtype == np.uint8 else value
        target[...] = _picture(plane).rotate(angle, Image.Resampling.BILINEAR, fillcolor=color)
    return result


def pad_images(images: np.ndarray, pad: int, mode: str) -> np.ndarray:
    """Pads (..., H, W) at each side by the image itself: mode "reflect" (c b a b c) or "edge" (a a a b c), as numpy.pad."""
    sides = [(0, 0)] * (images.ndim - 2) + [(pad, pad), (pad, pad)]
    return np.pad(images, sides, mode="reflect" if mode == "reflect" else "edge")


def _picture(plane: np.ndarray) -> Image.Image:
    """(H, W) as a picture of Pillow: bytes, or float32."""
    return Image.fromarray(np.ascontiguousarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32)))
