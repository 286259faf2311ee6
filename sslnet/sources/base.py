"""DataSource, the interface of data sources: a fixed number of images with their labels, read by index.

A source does not know batches, epochs, layers or threads. Its order is the order in the file; ``sslnet.sources.order``
determines the order in which records are read, and ``sslnet.sources.transformer`` transforms them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sslnet.errors import DataError, Span

Images = np.ndarray | list[np.ndarray]
"""Images: (n, C, H, W) uint8 or float32; a list of n arrays (C, H, W) if their sizes or types differ."""


@dataclass(frozen=True)
class Records:
    """Some records of a source, in the requested order."""

    images: Images
    labels: np.ndarray | None
    """Labels: (n) int32; None if the source has no labels."""


class DataSource(ABC):
    """A source of records, read by index.

    path      path or name given by the user, for messages
    shape     (C, H, W) of the first record
    labelled  whether the records have labels (judged by the first one)
    encoded   whether the first record is an image file, which the source decodes
    """

    path: str
    shape: tuple[int, int, int]
    labelled: bool
    encoded: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: np.ndarray, *, labels: bool = True) -> Records:
        """Reads the records of the given indices (0 .. len - 1); consecutive indices are fastest.

        labels  whether each record must have a label; if not, no labels are returned
        raises  DataError for a record that cannot be read
        """


class ArraySource(DataSource):
    """A source of records in memory.

    images  (n, C, H, W) uint8 or float32
    labels  (n) integers, or None
    """

    def __init__(self, path: str, images: np.ndarray, labels: np.ndarray | None) -> None:
        if not len(images):
            raise DataError("there are no images", path=path)
        self.path = path
        self.shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        self.labelled = labels is not None
        self._images = images
        self._labels = None if labels is None else labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: np.ndarray, *, labels: bool = True) -> Records:
        first, last = int(indices[0]), int(indices[-1])
        rows: slice | np.ndarray = indices
        if last - first + 1 == len(indices) and (np.diff(indices) == 1).all():
            rows = slice(first, last + 1)
        return Records(self._images[rows], self._labels[rows] if labels and self._labels is not None else None)


def located(error: DataError, span: Span | None, layer: str) -> DataError:
    """A copy of the error with the place in the prototxt that named the file; the file moves into the message. An error
    with a place of its own, in a list of files, keeps it."""
    if error.layer is not None:
        return error
    if error.span is not None:
        return DataError(error.message, span=error.span, layer=layer, hint=error.hint)
    message = f"{error.path}: {error.message}" if error.path else error.message
    return DataError(message, span=span, layer=layer, hint=error.hint)


def size_text(shape: Sequence[int]) -> str:
    """A shape as text: 3 x 32 x 32."""
    return " x ".join(map(str, shape))
