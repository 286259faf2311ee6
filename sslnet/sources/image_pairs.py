"""Batches of images with a class for each pixel: lists of an image file and a label file a line.

arrays[0]  (batch, C, H, W) images, transformed by transform_param
arrays[1]  (batch, 1, H, W) labels, cropped and mirrored as their images
arrays[2]  (batch, 1, 1, 2) rows and columns of the image before it was padded, at most those of the crop; if wanted
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, Span
from sslnet.files import MOST_IMAGE, MOST_LIST, read_bytes, read_text
from sslnet.sources.base import size_text
from sslnet.sources.images import decode_image, resize_image
from sslnet.sources.order import Order, generator
from sslnet.sources.prefetch import Reader
from sslnet.sources.resizing import LINEAR, NEAREST, interpolate
from sslnet.sources.transformer import DataTransformer

PIXEL, IMAGE, NONE = (
    pb.ImageDataParameter.PIXEL,
    pb.ImageDataParameter.IMAGE,
    pb.ImageDataParameter.NONE,
)


class Pair(NamedTuple):
    """One line of a list: image file, what stands beside it (label file or class), line number."""

    image: str
    label: str
    line: int


@dataclass(frozen=True)
class PairOptions:
    """How pairs are read.

    root           put before each file name
    height, width  size to resize to; both 0: none
    color          3 channels, or 1
    kind           what stands beside the image: PIXEL, IMAGE or NONE
    ignore         class of pixels without one: of NONE, and of what is added where an image is smaller than the crop
    edges          whether labels are 0 or 1, from a grey value of half of 255 on (HED), and are resized as images are
    pads           whether an image smaller than the crop is padded at its bottom and at its right, with the mean
    """

    root: str = ""
    height: int = 0
    width: int = 0
    color: bool = True
    kind: int = PIXEL
    ignore: int = 255
    edges: bool = False
    pads: bool = False


def read_pairs(path: str | os.PathLike[str], kind: int) -> list[Pair]:
    """Reads a list: an image file, blanks, a label file (IMAGE: a whole number; NONE: anything) a line.

    raises  DataError if the list cannot be read, names no images, or, with the line, for a line of another form
    """
    place, pairs = os.fspath(path), []
    for number, line in enumerate(read_text(place, limit=MOST_LIST).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        span = Span(place, number, 1, max(1, len(line)), line)
        if kind != NONE and len(words) != 2:
            raise DataError(f"a line must be an image file, a blank and a label, not {len(words)} words", span=span)
        if kind == IMAGE and not words[1].lstrip("-").isdecimal():
            raise DataError(f'the label must be a whole number, not "{words[1]}"', span=span)
        pairs.append(Pair(words[0], words[1] if len(words) > 1 else "", number))
    if not pairs:
        raise DataError("the list names no images", path=place)
    return pairs


class PairReader(Reader):
    """Makes batches of pairs.

    make      creates the transformation for images of a shape (C, H, W)
    crop      (height, width) of the crop; None: none
    mean      value of the pixels of each channel that are added; empty: 0
    sizes     whether there is a third array, of the images' sizes
    random    (seed, layer) of the random numbers
    """

    def __init__(
        self,
        path: str,
        options: PairOptions,
        make: Callable[[Sequence[int]], DataTransformer],
        batch_size: int,
        *,
        shuffle: bool,
        crop: tuple[int, int] | None,
        mean: Sequence[float],
        sizes: bool,
        random: tuple[int, str],
    ) -> None:
        self.path, self.options, self.batch_size, self.crop = path, options, batch_size, crop
        self._pairs = read_pairs(path, options.kind)
        self.records = len(self._pairs)
        self._order = Order(self.records, shuffle=shuffle, seed=random[0], layer=random[1])
        self._make, self._mean, self._random = make, list(mean), random
        image, _, _ = self.pair(0)
        self._transformer = make(image.shape)
        self.shapes = self.shapes_of(image.shape, sizes)

    def shapes_of(self, image: Sequence[int], sizes: bool) -> list[tuple[int, ...]]:
        """The shapes of the arrays for images (C, H, W)."""
        size = self.crop or (image[1], image[2])
        shapes: list[tuple[int, ...]] = [(self.batch_size, image[0], *size), (self.batch_size, 1, *size)]
        return shapes + ([(self.batch_size, 1, 1, 2)] if sizes else [])

    def next_shapes(self, position: int) -> list[tuple[int, ...]]:
        """The shapes of the batch of one image at a place, which may have another size."""
        image, _, _ = self.pair(int(self._order.indices(position, 1)[0]))
        self._transformer = self._make(image.shape)
        self.shapes = self.shapes_of(image.shape, len(self.shapes) > 2)
        return self.shapes

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """Image (C, H, W), label (H, W) float32, and the rows and columns before padding."""
        options, pair = self.options, self._pairs[index]
        image = self._read(pair.image, options.color, pair)
        if options.kind == PIXEL:
            label = self._read(pair.label, False, pair)
            if label.shape[1:] != image.shape[1:]:
                message = f"{pair.label} is {size_text(label.shape[1:])}, its image {size_text(image.shape[1:])}"
                raise DataError(message, span=self._span(pair))
            if options.height:
                label = interpolate(label, options.height, options.width, LINEAR if options.edges else NEAREST)
        if options.height:
            image = resize_image(image, options.height, options.width)
        if options.kind != PIXEL:
            number = int(pair.label) if options.kind == IMAGE else options.ignore
            label = np.full((1, *image.shape[1:]), number, np.float32)
        values = (label[0] > 127).astype(np.float32) if options.edges else label[0].astype(np.float32)
        size = (image.shape[1], image.shape[2])
        if options.pads and self.crop:
            more = [max(0, wanted - given) for wanted, given in zip(self.crop, size)]
            size = (min(size[0], self.crop[0]), min(size[1], self.crop[1]))
            if any(more):
                image = self._padded(image, more)
                values = np.pad(values, [(0, more[0]), (0, more[1])], constant_values=options.ignore)
        return image, values, size

    def _padded(self, image: np.ndarray, more: Sequence[int]) -> np.ndarray:
        result = np.empty((len(image), image.shape[1] + more[0], image.shape[2] + more[1]), np.float32)
        result[...] = np.resize(np.array(self._mean or [0.0], np.float32), len(image))[:, None, None]
        result[:, : image.shape[1], : image.shape[2]] = image
        return result

    def fill(self, position: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        draws = self._transformer.draw(generator(*self._random, "transform", batch), self.batch_size)
        for i, index in enumerate(self._order.indices(position, self.batch_size)):
            image, label, size = self.pair(int(index))
            one = slice(i, i + 1)
            try:
                self._transformer(image[None], arrays[0][one], draws[one])
            except DataError as error:
                raise DataError(f"{self._pairs[index].image} {error.message}", path=self.path) from error
            offset, flip = self._transformer.place(label.shape, draws[i])
            height, width = arrays[1].shape[2:]
            part = label[offset[0] : offset[0] + height, offset[1] : offset[1] + width]
            arrays[1][i, 0] = part[:, ::-1] if flip else part
            if len(arrays) > 2:
                arrays[2][i, 0, 0] = size

    def _read(self, name: str, color: bool, pair: Pair) -> np.ndarray:
        full = self.options.root + name
        place = Path(full)
        if not place.exists():
            place = Path(self.path).parent / full
        try:
            return decode_image(read_bytes(place, limit=MOST_IMAGE), color, upright=False)
        except DataError as error:
            raise DataError(f"{full}: {error.message}", span=self._span(pair)) from error

    def _span(self, pair: Pair) -> Span:
        return Span(self.path, pair.line, 1, max(1, len(pair.image)), f"{pair.image} {pair.label}")
