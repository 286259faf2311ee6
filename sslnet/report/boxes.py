"""Draws boxes with their names and scores on an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sslnet.errors import printable

COLORS = ((230, 25, 75), (0, 130, 200), (60, 180, 75), (245, 130, 48), (145, 30, 180), (0, 160, 160), (240, 50, 230))
"""Colours of the classes, in turn."""
LETTER = 6
"""Width of a letter, in pixels."""
LINE = 12
"""Height of a line of text, in pixels."""


class Detection(NamedTuple):
    """One box: class, its name, score, and corners in pixels of the image."""

    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]


def draw_boxes(image: np.ndarray, found: Sequence[Detection]) -> Image.Image:
    """The image (H, W, 3) uint8 with its boxes, those with the highest scores on top."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    thick = max(1, round(max(picture.size) / 300))
    for each in sorted(found, key=lambda one: one.score):
        color = COLORS[each.label % len(COLORS)]
        left, top, right, bottom = (
            min(max(value, 0), size - 1) for value, size in zip(each.box, (*picture.size, *picture.size))
        )
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=color, width=thick)
        text = printable(f"{each.name} {each.score:.2f}").encode("latin-1", "replace").decode("latin-1")
        above = max(0, top - LINE)
        draw.rectangle((left, above, left + LETTER * len(text) + 2, above + LINE), fill=color)
        draw.text((left + 2, above), text, fill=(255, 255, 255), font=font)
    return picture


def read_detections(rows: np.ndarray, image: int, size: tuple[int, int], names: dict[int, str]) -> list[Detection]:
    """The boxes of one image of a batch.

    rows   (..., 7): image, class, score, xmin, ymin, xmax, ymax in units of the image; class -1: no box
    size   width and height of the image in pixels
    names  class -> name
    """
    table = np.asarray(rows, np.float64).reshape(-1, 7)
    own = table[(table[:, 0] == image) & (table[:, 1] >= 0) & np.isfinite(table).all(axis=1)]
    scale = np.array([*size, *size])
    found = []
    for row in own[np.argsort(-own[:, 2], kind="stable")]:
        left, top, right, bottom = (row[3:] * scale).tolist()
        label = int(row[1])
        found.append(Detection(label, names.get(label, f"class {label}"), float(row[2]), (left, top, right, bottom)))
    return found
