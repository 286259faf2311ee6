"""Shapes on backgrounds: images with boxes that the package draws itself, to train small detection nets on.

An image is 240 to 360 pixels wide and high. On a colour gradient with lines and noise it has one to five shapes, each of
one of four classes, a random colour, size (a seventh to half of the shorter side), width / height and angle. A shape covers
little of another one. Every image depends only on its part (train or test) and its number.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from sslnet.sources.annotated import COLUMNS, annotated_datum, areas, intersections

CLASSES = ("disc", "box", "triangle", "cross")
"""The classes 1 to 4; 0 is the background."""
PARTS = {"train": 1600, "test": 300}
"""Number of images of each part."""
SIZES = (240, 361)
MOST_SHAPES = 5
MOST_COVERED = 0.15
"""Largest part of a shape's box that another one may cover."""
SCALE = 2
"""Pixels that are drawn for a pixel of the image, along each axis."""


def draw_image(part: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """One image: (H, W, 3) uint8 with red, green, blue, and its objects (n, COLUMNS): class, number, corners in units of
    the image, 0."""
    random = np.random.default_rng([list(PARTS).index(part), index])
    height, width = (int(n) for n in random.integers(*SIZES, 2))
    picture = _background(random, height, width)
    draw = ImageDraw.Draw(picture)
    objects: list[list[float]] = []
    boxes = np.empty((0, 4))
    for _ in range(int(random.integers(1, MOST_SHAPES + 1))):
        label = int(random.integers(len(CLASSES)))
        points = _outline(CLASSES[label], random, height, width)
        corners = np.concatenate([points.min(axis=0), points.max(axis=0)])
        common = intersections(boxes, corners)
        if (common > MOST_COVERED * np.minimum(areas(boxes), areas(corners[None])[0])).any():
            continue
        around = np.asarray(picture.getpixel(tuple((SCALE * points.mean(axis=0)).astype(int).tolist())))
        color = random.integers(0, 256, 3)
        if np.abs(color - around).sum() < 150:
            color = (color + 128) % 256
        draw.polygon([tuple(point) for point in (points * SCALE).tolist()], fill=tuple(int(c) for c in color))
        boxes = np.concatenate([boxes, corners[None]])
        objects.append([label + 1, len(objects), *(corners / [width, height, width, height]), 0])
    pixels = np.asarray(picture.reduce(SCALE), np.float32)
    strength = np.float32(random.uniform(0, 12))
    pixels = pixels + strength * random.standard_normal(pixels.shape, np.float32)
    image: np.ndarray = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return image, np.array(objects, np.float64).reshape(-1, COLUMNS)


def records(part: str, count: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and AnnotatedDatums of the first images of a part."""
    for index in range(count):
        image, objects = draw_image(part, index)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        yield f"{index:08d}".encode(), annotated_datum(file.getvalue(), objects)


def label_map() -> str:
    """The label map of the classes, as text."""
    names = ("background", *CLASSES)
    return "".join(
        f'item {{\n  name: "{name}"\n  label: {label}\n  display_name: "{name}"\n}}\n'
        for label, name in enumerate(names)
    )


def _background(random: np.random.Generator, height: int, width: int) -> Image.Image:
    """A gradient between two colours, with some thin lines; SCALE times as large as the image."""
    first, second = random.integers(0, 256, (2, 3))
    angle = random.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:16, 0:16] / 15
    along = (math.cos(angle) * (x - 0.5) + math.sin(angle) * (y - 0.5)) + 0.5
    values = first + (second - first) * np.clip(along, 0, 1)[..., None]
    picture = Image.fromarray(values.astype(np.uint8))
    picture = picture.resize((SCALE * width, SCALE * height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(0, 8))):
        ends = (random.random((2, 2)) * [SCALE * width, SCALE * height]).tolist()
        color = tuple(int(c) for c in random.integers(0, 256, 3))
        draw.line([tuple(end) for end in ends], fill=color, width=int(random.integers(1, 2 + SCALE)))
    return picture


def _outline(name: str, random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """The corners of a shape inside the image: (n, 2) x and y in pixels."""
    unit = {
        "disc": np.array([(math.cos(t), math.sin(t)) for t in np.linspace(0, 2 * math.pi, 48, endpoint=False)]),
        "box": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64),
        "triangle": np.array([(0, -1), (1, 0.9), (-1, 0.9)]),
        "cross": np.array(
            [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]
        )
        / 3.0,
    }[name]
    shorter = min(height, width)
    size, ratio = random.uniform(shorter / 14, shorter / 4), random.uniform(-0.25, 0.25)
    angle = random.uniform(-0.25, 0.25)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    points = unit * [size * math.exp(ratio), size * math.exp(-ratio)] @ turn
    low, high = points.min(axis=0), points.max(axis=0)
    place = random.random(2) * (np.array([width, height]) - (high - low))
    return np.asarray(points - low + np.maximum(place, 0))
