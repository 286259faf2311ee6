"""Converts a list of image files to the records of a database, with the keys and the bytes that Caffe's convert_imageset
writes.

A record is raw (sizes and pixels, planes blue, green, red) or encoded (an image file). A file becomes the record unchanged
if it has the requested format, channels and orientation already and is not to be resized.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.files import MOST_IMAGE, read_bytes
from sslnet.sources.base import size_text
from sslnet.sources.images import ListedImage, decode_image, encode_image, file_form, resize_image

ENCODINGS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "bmp": "BMP", "webp": "WEBP"}
"""File name ending -> format."""
LONGEST_KEY = 511
"""Maximum number of bytes of a key of an LMDB."""
AHEAD = 64
"""Number of images per thread that are prepared at once."""


@dataclass(frozen=True)
class Conversion:
    """The conversion of an image file to a record.

    root           folder of the files
    height, width  size to resize to; both 0: unchanged
    color          whether images get 3 channels, or 1
    encoding       format of encoded records; "": the format of each file's name; None: raw records
    """

    root: str = ""
    height: int = 0
    width: int = 0
    color: bool = True
    encoding: str | None = None

    def __call__(self, image: ListedImage) -> tuple[bytes, tuple[int, ...]]:
        """Converts one image: the bytes of the Datum, and the size (C, H, W). raises DataError if the image cannot be
        read"""
        name = os.path.join(self.root, image.name.lstrip("/")) if self.root else image.name
        try:
            raw = read_bytes(name, limit=MOST_IMAGE)
        except DataError as error:
            raise DataError(f"{name} {error.message}") from error
        try:
            return self._datum(raw, image)
        except DataError as error:
            raise DataError(f"{name}: {error.message}") from error

    def _datum(self, raw: bytes, image: ListedImage) -> tuple[bytes, tuple[int, ...]]:
        pixels = decode_image(raw, self.color, upright=True)
        if self.height:
            pixels = resize_image(pixels, self.height, self.width)
        datum = pb.Datum(label=image.label, encoded=self.encoding is not None)
        if self.encoding is None:
            datum.channels, datum.height, datum.width = pixels.shape
            datum.data = pixels.tobytes()
        else:
            form = self.encoding or _form_of_name(image.name)
            as_it_is = not self.height and file_form(raw) == (form, len(pixels), True)
            datum.data = raw if as_it_is else encode_image(pixels, form)
        return datum.SerializeToString(), pixels.shape


def convert(
    images: Sequence[ListedImage],
    conversion: Conversion,
    list_path: str,
    *,
    threads: int = 1,
    same_size: bool = False,
    on_bad: Callable[[DataError], object] | None = None,
) -> Iterator[tuple[bytes, bytes] | None]:
    """Converts images to keys and Datums, in the order of the images; None for an image that was skipped.

    list_path  path of the list, for messages
    same_size  whether an image of another size than the first one is an error
    on_bad     called for an image that cannot be read, which is then skipped; None: it is an error

    raises DataError, with the line of the list
    """
    first: tuple[int, ...] | None = None
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(images), AHEAD * threads):
            part = images[start : start + AHEAD * threads]
            made = [pool.submit(conversion, image) for image in part]
            try:
                for index, (image, future) in enumerate(zip(part, made), start):
                    try:
                        value, size = future.result()
                        first = first or size
                        if same_size and size != first:
                            raise DataError(
                                f"{image.name} is {size_text(size)}, but the first one is {size_text(first)}"
                            )
                        yield _key(index, image), value
                    except DataError as error:
                        located = DataError(error.message, span=image.span(list_path), hint=error.hint)
                        if on_bad is None:
                            raise located from error
                        on_bad(located)
                        yield None
            finally:
                for future in made:
                    future.cancel()


def shuffled(images: Sequence[ListedImage], seed: int) -> list[ListedImage]:
    """The images in a random order, which is the same for the same seed."""
    return [images[i] for i in np.random.default_rng(seed).permutation(len(images))]


def _key(index: int, image: ListedImage) -> bytes:
    key = f"{index:08d}_".encode() + os.fsencode(image.name)
    if len(key) > LONGEST_KEY:
        raise DataError(f"the file name has more than {LONGEST_KEY - 9} bytes, which a key cannot hold")
    return key


def _form_of_name(name: str) -> str:
    suffix = os.path.splitext(name)[1].lstrip(".").lower()
    if suffix not in ENCODINGS:
        raise DataError(
            f'the name does not end in an encoding that can be written: "{suffix}"', hint="give --encode-type"
        )
    return ENCODINGS[suffix]
