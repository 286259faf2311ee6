"""Windows of images: the list that R-CNN made of its proposals, and the pixels of one window at a fixed size.

The list names an image, its sizes and its windows, one after the other, all separated by blanks or line ends:

    # 0
    images/a.jpg
    3 375 500                             channels, height, width
    2                                     windows
    15 0.83 10 20 199 240                 class, overlap with the object, x1 y1 x2 y2, both ends included
    0 0.12 0 0 80 90

Ref: Girshick et al. 2014, "Rich feature hierarchies for accurate object detection and semantic segmentation", 2.3 and
appendix A (the crops with context, "warp" and "tightest square with context")
"""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from sslnet.errors import DataError, Span
from sslnet.files import MOST_IMAGE, open_regular, read_bytes
from sslnet.sources.images import decode_image, resize_image

Box = tuple[int, int, int, int]
LONGEST_LINE = 1 << 20
LABEL, OVERLAP, X1, Y1, X2, Y2, IMAGE = range(7)
"""Columns of an array of windows."""


@dataclass(frozen=True)
class WindowList:
    """A list of windows. path: path of the list; images: file names; windows: (n, 7) float32 as in Caffe, with the
    columns LABEL .. IMAGE."""

    path: str
    images: list[str]
    windows: np.ndarray


def read_windows(path: str | os.PathLike[str]) -> WindowList:
    """Reads a list of windows.

    raises DataError, with the line, if the file is not a list, is cut off, or its images are not numbered from 0 or not in
    colour
    """
    name = os.fspath(path)
    with (
        open_regular(name) as raw,
        io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape") as file,
    ):
        try:
            return _read(_Words(name, file))
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", path=name) from error


def _read(words: _Words) -> WindowList:
    images: list[str] = []
    windows = []
    while (mark := words.next()) is not None:
        if mark != "#":
            raise words.error(f'an image must begin with "# {len(images)}", not "{mark[:40]}"')
        if words.number("the number of the image") != len(images):
            raise words.error(f"images must be numbered from 0; this is number {len(images)}")
        images.append(words.word("the file name of the image"))
        channels, _, _ = (words.number(f"the {what} of the image") for what in ("channels", "height", "width"))
        if channels != 3:
            raise words.error(f"images must have 3 channels, not {channels}")
        count = words.number("the number of windows")
        if count < 0:
            raise words.error(f"the number of windows cannot be {count}")
        rows = words.numbers(6, count, "a window")
        windows.append(np.column_stack([rows, np.full(count, len(images) - 1, np.float32)]))
    if not images:
        raise DataError("the list names no images", path=words.path)
    return WindowList(words.path, images, np.concatenate(windows))


class _Words:
    """The words of a text file, and the line of the last one. Needs no more memory than the words requested."""

    def __init__(self, path: str, file: IO[str]) -> None:
        self.path = path
        self.line = 0
        self.text = ""
        self._file = file
        self._words: list[str] = []

    def next(self) -> str | None:
        """The next word; None at the end."""
        while not self._words:
            text = self._file.readline(LONGEST_LINE)
            if not text:
                return None
            self.line, self.text = self.line + 1, text.rstrip("\n")
            if len(text) == LONGEST_LINE:
                self.text = ""
                raise self.error(f"a line has {LONGEST_LINE} characters or more")
            self._words = text.split()[::-1]
        return self._words.pop()

    def word(self, what: str) -> str:
        word = self.next()
        if word is None:
            raise self.error(f"{what} is missing: the file ends here", hint="the file is cut off")
        return word

    def number(self, what: str) -> int:
        word = self.word(what)
        try:
            return int(word)
        except ValueError:
            raise self.error(f'{what} must be a whole number, not "{word[:40]}"') from None

    def numbers(self, columns: int, rows: int, what: str) -> np.ndarray:
        """The next numbers: (rows, columns) float32."""
        values: list[float] = []
        while len(values) < rows * columns:
            word = self.word(what)
            try:
                values.append(float(word))
            except ValueError:
                raise self.error(f'{what} must be six numbers, not "{word[:40]}"') from None
            if not abs(values[-1]) < 2**24:  # integers up to here are exact in float32
                raise self.error(f'{what} must be six numbers below 2^24, not "{word[:40]}"')
        return np.array(values, np.float32).reshape(rows, columns)

    def error(self, message: str, hint: str = "") -> DataError:
        if not self.line:
            return DataError(message, path=self.path, hint=hint)
        text = "".join(letter if letter.isprintable() else "\ufffd" for letter in self.text)
        return DataError(message, span=Span(self.path, self.line, 1, max(1, len(text)), text), hint=hint)


def read_image(name: str, list_path: str) -> bytes:
    """Reads the bytes of an image file: relative to the working directory, or else to the folder of the list."""
    place = Path(name)
    if not place.exists():
        place = Path(list_path).parent / name
    try:
        return read_bytes(place, limit=MOST_IMAGE)
    except DataError as error:
        raise DataError(error.message, path=name) from error


def decode(raw: bytes, name: str) -> np.ndarray:
    """Decodes an image file to (3, H, W) uint8, blue, green, red."""
    try:
        return decode_image(raw, True, upright=True)
    except DataError as error:
        raise DataError(error.message, path=name) from error


def crop_window(
    image: np.ndarray, box: Box, size: int, *, context: int = 0, square: bool = False, mirror: bool = False
) -> tuple[np.ndarray, int, int]:
    """Cuts a window out of an image, and warps it so that with its context it fills size x size.

    image    (C, H, W) uint8
    box      x1, y1, x2, y2, both ends included
    context  number of pixels at each side of the result that show the surroundings of the window, below size / 2
    square   whether to enlarge the window to a square first, so that proportions are kept
    mirror   whether to mirror it left to right
    returns  the pixels (C, h, w), at most size x size, and their offsets from the top and from the left: the part of the
             context beyond the image has no pixels
    raises   DataError if the window is not in the image
    """
    _, height, width = image.shape
    outside = DataError(f"the window {' '.join(map(str, box))} is not in the image, which is {height} x {width}")
    x1, y1, x2, y2 = box
    if x1 > x2 or y1 > y2:
        raise outside
    top = left = 0
    new_height = new_width = size
    if context or square:
        x1, y1, x2, y2 = _with_context(box, size, context, square)
        scale_x, scale_y = size / (x2 - x1 + 1), size / (y2 - y1 + 1)
        over = max(0, -x1), max(0, -y1), max(0, x2 - width + 1), max(0, y2 - height + 1)
        x1, y1, x2, y2 = x1 + over[0], y1 + over[1], x2 - over[2], y2 - over[3]
        top, left = _round(over[1] * scale_y), _round(over[2 if mirror else 0] * scale_x)
        new_height = min(_round((y2 - y1 + 1) * scale_y), size - top)
        new_width = min(_round((x2 - x1 + 1) * scale_x), size - left)
    if not (0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height):
        raise outside
    if min(new_height, new_width) < 1:
        return image[:, :0, :0], 0, 0
    window = resize_image(np.ascontiguousarray(image[:, y1 : y2 + 1, x1 : x2 + 1]), new_height, new_width)
    return window[:, :, ::-1] if mirror else window, top, left


def _with_context(box: Box, size: int, context: int, square: bool) -> Box:
    """The box enlarged so that after the warp to size x size it shows the context around the window."""
    x1, y1, x2, y2 = box
    half_height, half_width = (y2 - y1 + 1) / 2, (x2 - x1 + 1) / 2
    center_x, center_y = x1 + half_width, y1 + half_height
    if square:
        half_height = half_width = max(half_height, half_width)
    scale = size / (size - 2 * context)
    return (
        _round(center_x - half_width * scale),
        _round(center_y - half_height * scale),
        _round(center_x + half_width * scale),
        _round(center_y + half_height * scale),
    )


def _round(value: float) -> int:
    """Rounds to the nearest integer, halves away from zero, as C's round."""
    return math.floor(value + 0.5) if value >= 0 else -math.floor(-value + 0.5)
