"""Draws a contact sheet: small images in rows, each with a line of text below it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sslnet.errors import printable
from sslnet.files import atomic_path

SMALLEST, LARGEST = 96, 320
"""Sides of an image on the sheet, in pixels: smaller images are enlarged by a whole factor, larger ones are reduced."""
GAP, TEXT = 6, 14
BACKGROUND, INK = (255, 255, 255), (40, 40, 40)
LETTER = 6
"""Width of a letter, in pixels."""


def contact_sheet(images: np.ndarray, captions: Sequence[str], columns: int) -> Image.Image:
    """Draws images of one size in rows.

    images    (n, H, W, 3) or (n, H, W, 1) uint8, R, G, B or grey; n at least 1
    captions  n texts, cut off at the width of an image
    columns   number of images in a row
    """
    height, width = images.shape[1:3]
    longer = max(height, width)
    factor = max(1, -(-SMALLEST // longer)) if longer < SMALLEST else min(1.0, LARGEST / longer)
    tile_height, tile_width = max(1, round(height * factor)), max(1, round(width * factor))
    room = max(tile_width, SMALLEST)
    rows = -(-len(images) // columns)
    size = (GAP + columns * (room + GAP), GAP + rows * (tile_height + TEXT + GAP))
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    method = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    for k, (image, caption) in enumerate(zip(images, captions)):
        left = GAP + k % columns * (room + GAP)
        top = GAP + k // columns * (tile_height + TEXT + GAP)
        pixels = np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image)
        sheet.paste(Image.fromarray(pixels).resize((tile_width, tile_height), method), (left, top))
        text = printable(caption).encode("latin-1", "replace").decode("latin-1")[: room // LETTER]
        draw.text((left, top + tile_height + 1), text, fill=INK, font=font)
    return sheet


def write_sheet(path: str | os.PathLike[str], sheet: Image.Image) -> None:
    """Writes the sheet in the format that the name of the file ends in. raises RunError if it cannot be written"""
    with atomic_path(path) as temporary:
        sheet.save(temporary)
