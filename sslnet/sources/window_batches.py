"""Makes batches of windows, drawn at random from a list (``sslnet.sources.windows``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet.errors import DataError
from sslnet.sources.order import generator
from sslnet.sources.prefetch import Reader
from sslnet.sources.windows import IMAGE, LABEL, X1, Y2, Box, crop_window, decode, read_image


class Crops:
    """The transformation of each window: crop_window with these arguments, then (pixel - mean) * scale."""

    def __init__(
        self, size: int, context: int, square: bool, mirror: bool, mean: np.ndarray, scale: np.float32
    ) -> None:
        self.size = size
        self.mirror = mirror
        self._context = context
        self._square = square
        self._mean = mean
        self._scale = scale

    def __call__(self, image: np.ndarray, box: Box, mirror: bool, out: np.ndarray) -> None:
        """Transforms one window.  [overwrites out (3, size, size)]"""
        pixels, top, left = crop_window(
            image, box, self.size, context=self._context, square=self._square, mirror=mirror
        )
        place = (slice(None), slice(top, top + pixels.shape[1]), slice(left, left + pixels.shape[2]))
        mean = self._mean if self._mean.shape[1:] == (1, 1) else self._mean[place]
        out[...] = 0
        out[place] = (pixels.astype(out.dtype) - mean.astype(out.dtype)) * out.dtype.type(self._scale)


class WindowReader(Reader):
    """Makes batches of windows.

    windows  windows of background and of objects; counts: number of each in a batch
    random   (seed, layer) of the random numbers
    keep     whether image files stay in memory after they are read
    """

    def __init__(
        self,
        crops: Crops,
        images: Sequence[str],
        list_path: str,
        windows: Sequence[np.ndarray],
        counts: Sequence[int],
        random: tuple[int, str],
        *,
        keep: bool,
    ) -> None:
        self.batch_size = sum(counts)
        self.shapes = [(self.batch_size, 3, crops.size, crops.size), (self.batch_size,)]
        self._crops = crops
        self._images = images
        self._list_path = list_path
        self._windows = windows
        self._counts = counts
        self._random = random
        self._kept: dict[int, bytes] | None = {} if keep else None
        self._shapes: dict[int, tuple[int, ...]] = {}

    def fill(self, position: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        random = generator(*self._random, "windows", batch)
        data, labels = arrays
        item = 0
        for is_object, (windows, count) in enumerate(zip(self._windows, self._counts)):
            for row in windows[random.integers(len(windows), size=count)] if count else ():
                mirror = bool(random.integers(2)) and self._crops.mirror
                x1, y1, x2, y2 = (int(value) for value in row[X1 : Y2 + 1])
                index = int(row[IMAGE])
                try:
                    self._crops(self._image(index), (x1, y1, x2, y2), mirror, data[item])
                except DataError as error:
                    path = self._images[index]
                    raise DataError(error.message, path=path, hint=f"image {index} of {self._list_path}") from error
                labels[item] = row[LABEL] if is_object else 0
                item += 1

    def _image(self, index: int) -> np.ndarray:
        name = self._images[index]
        raw = self._kept.get(index) if self._kept is not None else None
        if raw is None:
            raw = read_image(name, self._list_path)
            if self._kept is not None:
                self._kept[index] = raw
        image = decode(raw, name)
        if self._shapes.setdefault(index, image.shape) != image.shape:  # the windows refer to the original image
            raise DataError("has changed while it was read", path=name)
        return image
