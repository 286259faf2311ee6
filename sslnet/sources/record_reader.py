"""RecordReader: makes batches of transformed records of a source, in an order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslnet.errors import DataError
from sslnet.sources.base import DataSource
from sslnet.sources.order import Order, generator
from sslnet.sources.prefetch import Reader
from sslnet.sources.transformer import DataTransformer


class RecordReader(Reader):
    """Makes batches of a source: its records in order, transformed, with their labels.

    labelled  whether there is a second array, for the labels
    random    (seed, layer) of the transformer's random numbers
    """

    def __init__(
        self,
        source: DataSource,
        order: Order,
        transformer: DataTransformer,
        batch_size: int,
        labelled: bool,
        random: tuple[int, str],
    ) -> None:
        self.batch_size = batch_size
        self.records = len(source)
        self.shapes = [(batch_size, *transformer.shape)] + ([(batch_size,)] if labelled else [])
        self._source = source
        self._order = order
        self.transformer = transformer
        """The transformation of the records."""
        self._random = random

    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of records of bytes, as the first one is: what the transformation makes of 0 to 255."""
        images = self._source.read(np.zeros(1, np.int64), labels=False).images
        return self.transformer.bounds(0, 255) if images[0].dtype == np.uint8 else None

    def fill(self, position: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        self.fill_part(position, batch, arrays, 0, 1)

    def fill_part(self, position: int, batch: int, arrays: Sequence[np.ndarray], part: int, parts: int) -> None:
        """Crops and mirrors each record as in one batch of all parts.  [overwrites arrays]"""
        first = part * self.batch_size
        indices = self._order.indices(position + first, self.batch_size)
        draws = self.transformer.draw(generator(*self._random, "transform", batch), parts * self.batch_size)
        draws = draws[first : first + self.batch_size]
        records = self._source.read(indices, labels=len(arrays) > 1)
        if isinstance(records.images, np.ndarray):
            self._transform(records.images, arrays[0], draws, indices)
        else:
            for i, image in enumerate(records.images):
                one = slice(i, i + 1)
                self._transform(image[None], arrays[0][one], draws[one], indices[one])
        if records.labels is not None:
            arrays[1][:] = records.labels

    def _transform(self, images: np.ndarray, out: np.ndarray, draws: np.ndarray, indices: np.ndarray) -> None:
        try:
            self.transformer(images, out, draws)
        except DataError as error:
            raise DataError(f"record {indices[0]}: {error.message}", path=self._source.path) from error
