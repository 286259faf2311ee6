"""Decodes images, PNG, JPEG and other files, to arrays as Caffe (through OpenCV) does, and reads lists of image files.

Colour images are (3, H, W) with the planes blue, green, red; grey images (1, H, W); values are bytes.
"""

from __future__ import annotations

import io
import os
import struct
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from sslnet.errors import DataError, Span, SslnetError
from sslnet.files import MOST_IMAGE, MOST_LIST, read_bytes, read_text
from sslnet.sources.base import DataSource, Records
from sslnet.sources.transform_kernels import resize_bytes

MAX_PIXELS = 1 << 26
"""Maximum number of pixels of an image: 64 Mpixel, 192 MiB in colour. A PNG of a few bytes can claim any size."""
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF")
MORE_FORMATS = (*FORMATS, "JPEG2000", "DIB", "PCX", "SGI", "ICO", "TGA")
"""Formats of images that a user names one by one. TGA is last, because its files do not begin with a signature."""
MOST_ICONS = 256
ICON_HEAD = 1 << 16
"""Number of bytes of an image in an ICO file in which its own size must be found."""
GREY_WEIGHTS = np.array([3735, 19235, 9798], np.uint32)
"""Weights of blue, green and red in grey (0.114, 0.587, 0.299) in units of 1/32768."""
COEFFICIENT_BITS = 11
ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""


def decode_image(raw: bytes, color: bool | None = None, *, upright: bool = False) -> np.ndarray:
    """Decodes an image file in memory to (C, H, W) uint8.

    color    True: 3 channels B, G, R; False: 1, grey; None: the channels of the file (4 with transparency: B, G, R, alpha)
    upright  whether to turn the image by its EXIF orientation
    raises   DataError for a file that is no image, is cut off, or has more than MAX_PIXELS pixels

    Grey from colour is rounded as libpng does (JPEG: the luma of the file), so it may differ by one from other versions.
    """
    try:
        image = open_image(raw)
        if color is False:
            image.draft("L", None)
        if upright:
            image = ImageOps.exif_transpose(image)
        return _planes(_pixels(image, color), color)
    except SslnetError:
        raise
    except Exception as error:  # the decoders raise almost anything for damaged files
        raise DataError(f"the image cannot be decoded: {error}") from error


def open_image(raw: bytes, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Opens an image file in memory without decoding it; every image that sslnet reads is opened here.

    formats  allowed formats, by Pillow's names
    raises DataError for a file that is no image, or has more than MAX_PIXELS pixels; decoding it may raise almost any error

    Image.open is not used: it warns of large images, and warnings can only be suppressed for all threads at once.
    """
    Image.init()
    for name in formats:
        make, accepts = Image.OPEN.get(name, (None, None))
        if make is None or (accepts is not None and accepts(raw[:16]) is not True):
            continue
        if name == "ICO":  # Pillow decodes these on opening
            _check_icons(raw)
        try:
            image = make(io.BytesIO(raw), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # not this format, as Image.open has it
            continue
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"the image has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read")
        return image
    raise DataError("the image cannot be decoded: it is of no format that is read", hint=", ".join(formats))


def _check_icons(raw: bytes) -> None:
    """Checks the images in an ICO file, which have sizes of their own beside those in its directory; raises DataError
    if one is too large."""
    count = int.from_bytes(raw[4:6], "little")
    if count > MOST_ICONS:
        raise DataError(f"the image is a file of {count} icons; at most {MOST_ICONS} are read")
    for entry in range(6, 6 + 16 * count, 16):
        begin = int.from_bytes(raw[entry + 12 : entry + 16], "little")
        open_image(raw[begin : begin + ICON_HEAD], ("PNG", "DIB")).close()


def file_form(raw: bytes) -> tuple[str, int, bool]:
    """Reads from the header of an image file its format (PNG, JPEG, ...), its number of channels (0: neither grey nor
    plain colour), and whether it is upright without turning by its EXIF orientation. raises DataError for a file that
    is no image"""
    try:
        with open_image(raw) as image:
            plain = "transparency" not in image.info
            channels = {"L": 1, "RGB": 3}.get(image.mode, 0) if plain else 0
            return str(image.format), channels, image.getexif().get(ORIENTATION, 1) == 1
    except SslnetError:
        raise
    except Exception as error:  # the decoders raise almost anything for damaged files
        raise DataError(f"the image cannot be decoded: {error}") from error


def encode_image(image: np.ndarray, form: str) -> bytes:
    """Encodes (C, H, W) uint8, grey or B, G, R, as an image file of the format: PNG, JPEG (quality 95), ..."""
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image[::-1].transpose(1, 2, 0))
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, form, **({"quality": 95} if form == "JPEG" else {}))
    return target.getvalue()


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes (C, H, W) uint8 to (C, height, width) by bilinear interpolation, as OpenCV's resize does.

    Pixel centres are at half coordinates, the border is repeated, and nothing is smoothed when the image shrinks; weights are
    rounded to 1/2048. Ref: OpenCV, imgproc, resize with INTER_LINEAR.
    """
    if image.shape[1:] == (height, width):
        return image
    result = np.empty((len(image), height, width), np.uint8)
    part = np.empty((image.shape[1], width), np.int32)
    rows, columns = _taps(image.shape[1], height), _taps(image.shape[2], width)
    resize_bytes(np.ascontiguousarray(image), rows, columns, part, result)
    return result


class ImageFiles(DataSource):
    """Image files with labels. A subclass sets ``path`` and knows the files' names.

    file_labels    (n) int32
    height, width  size to resize to; 0: none
    color          whether images get 3 channels, or 1
    resize         resizes each image instead; None: by height and width
    """

    labelled = True

    def __init__(
        self,
        file_labels: np.ndarray,
        *,
        height: int = 0,
        width: int = 0,
        color: bool = True,
        resize: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self._size, self._resize = (height, width), resize
        self._color = color
        self._labels = file_labels
        channels, rows, columns = self._image(0).shape
        self.shape = (channels, rows, columns)

    @abstractmethod
    def name(self, index: int) -> str:
        """The name of a file, for messages."""

    def place(self, index: int) -> str | Path:
        """The path of a file."""
        return self.name(index)

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, indices: np.ndarray, *, labels: bool = True) -> Records:
        return Records([self._image(int(i)) for i in indices], self._labels[indices] if labels else None)

    def _image(self, index: int) -> np.ndarray:
        name = self.name(index)
        try:
            raw = read_bytes(self.place(index), limit=MOST_IMAGE)
        except DataError as error:
            raise DataError(f"image {index + 1} {error.message}", path=name) from error
        try:
            image = decode_image(raw, self._color, upright=True)
        except DataError as error:
            raise DataError(error.message, path=name, hint=f"image {index + 1} of {self.path}") from error
        if self._resize is not None:
            return self._resize(image)
        return resize_image(image, *self._size) if all(self._size) else image


class ImageListSource(ImageFiles):
    """The images of a text file with one image per line: file name, blank, label.

    path           path of the list
    root           prefix of each file name, added without a separator
    height, width, color, resize  as in ImageFiles
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        root: str = "",
        height: int = 0,
        width: int = 0,
        color: bool = True,
        resize: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        listed = read_list(self.path)
        self._files = [root + image.name for image in listed]
        labels = np.array([image.label for image in listed], np.int32)
        super().__init__(labels, height=height, width=width, color=color, resize=resize)

    def name(self, index: int) -> str:
        return self._files[index]

    def place(self, index: int) -> Path:
        return _find(self._files[index], self.path)


class ListedImage(NamedTuple):
    """One line of a list: file name, label, line number."""

    name: str
    label: int
    line: int

    def span(self, path: str) -> Span:
        """The place of the file name in the list at this path."""
        return Span(path, self.line, 1, len(self.name), f"{self.name} {self.label}")


def read_list(path: str | os.PathLike[str]) -> list[ListedImage]:
    """Reads the lines of a list of images, `name label`; names may contain blanks, empty lines are skipped.

    raises  DataError if the list cannot be read, names no images, or, with the line, if a line is not of this form
    """
    place = os.fspath(path)
    lines = read_text(place, limit=MOST_LIST).splitlines()
    images = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, label = line.rstrip().rpartition(" ")
        try:
            images.append(ListedImage(name, _label(label), number))
        except ValueError:
            span = Span(place, number, len(line.rstrip()) - len(label) + 1, max(1, len(label)), line)
            raise DataError("a line must be a file name, a space, and a whole number as label", span=span) from None
        if not name:
            raise DataError("there is no file name before the label", span=Span(place, number, 1, len(line), line))
    if not images:
        raise DataError("the list names no images", path=place)
    return images


def _label(text: str) -> int:
    value = int(text)
    if not -(2**31) <= value < 2**31:
        raise ValueError(text)
    return value


def _find(name: str, list_path: str) -> Path:
    """The path of a listed file: relative to the working directory, as in Caffe, or else to the folder of the list."""
    place = Path(name)
    if place.exists():
        return place
    return Path(list_path).parent / name


def _pixels(image: Image.Image, color: bool | None) -> np.ndarray:
    """The pixels of an opened image: (H, W) or (H, W, C) uint8 in PIL's channel order; not yet converted to grey."""
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits
        if color is None or image.mode.startswith("F"):
            raise DataError(f"the image has more than 8 bits a pixel (mode {image.mode})")
        low: np.ndarray = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return low
    if image.mode == "1":
        image = image.convert("L")
    if image.mode != "L":
        alpha = color is None and (image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info)
        image = image.convert("RGBA" if alpha else "RGB")
    return np.asarray(image)


def _planes(pixels: np.ndarray, color: bool | None) -> np.ndarray:
    """Converts pixels to (C, H, W): R, G, B, alpha to B, G, R, alpha; grey to three channels, or colour to grey, as
    requested."""
    if pixels.ndim == 2:
        return np.repeat(pixels[None], 3, axis=0) if color else pixels[None].copy()
    order = [2, 1, 0, 3][: pixels.shape[2]]
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[order])
    if color is False:
        return ((np.tensordot(GREY_WEIGHTS, planes.astype(np.uint32), 1) + 16384) >> 15).astype(np.uint8)[None]
    return planes


def _taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new pixel, the two old pixels around it, and the weight of the second in 1/2048."""
    place = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    first = np.floor(place).astype(np.int64)
    part = place - first
    part[(first < 0) | (first >= size - 1)] = 0
    first = np.clip(first, 0, size - 1)
    weight = np.rint(part.astype(np.float32) * (1 << COEFFICIENT_BITS)).astype(np.int32)
    return first, np.minimum(first + 1, size - 1), weight
