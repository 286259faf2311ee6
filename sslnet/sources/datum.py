"""Decodes the records of a Caffe database, Datum messages, into arrays.

The records of one database nearly always begin with the same bytes (sizes, length of the pixels) and end with the label.
The decoder compares these bytes and copies the pixels without parsing. Any other record is parsed as a message; the
result is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.prototxt.wire_format import field_head
from sslnet.sources.base import Images, Records, size_text
from sslnet.sources.images import decode_image

DATA_FIELD = pb.Datum.DESCRIPTOR.fields_by_name["data"].number
LONGEST_TAIL = 16
"""Maximum number of bytes after the pixels: label and `encoded: false` need at most 13."""
MOST_TAILS = 100_000
UNLABELLED = "a layer with a single top reads databases without labels"


@dataclass(frozen=True)
class Values:
    """The bytes of some records, one after the other in ``data``; ``begins`` and ``sizes`` give the place of each."""

    data: np.ndarray
    begins: np.ndarray
    sizes: np.ndarray

    @staticmethod
    def of(values: Sequence[bytes]) -> Values:
        sizes = np.array([len(value) for value in values], np.int64)
        return Values(np.frombuffer(b"".join(values), np.uint8), np.cumsum(sizes) - sizes, sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> bytes:
        return self.data[self.begins[index] : self.begins[index] + self.sizes[index]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))


class DatumDecoder:
    """Decodes the records of one database.

    path    path of the database, for messages
    color   color mode of encoded records, as in ``decode_image``; raw records are not changed
    """

    def __init__(self, path: str, color: bool | None = None) -> None:
        self._path = path
        self._color = color
        self._head: bytes | None = None
        self._shape: tuple[int, int, int] = (0, 0, 0)
        self._tails: dict[bytes, int | None] = {}
        """Label of each byte sequence after the pixels, as far as seen."""
        self.encoded = False
        """Whether the first record decoded was an image file."""

    def first(self, value: bytes) -> tuple[np.ndarray, int | None]:
        """Decodes the first record, (C, H, W) and its label, and remembers its layout for the others."""
        datum = self._parse(value, 0)
        self.encoded = datum.encoded
        if datum.data and not datum.encoded:
            head = pb.Datum(channels=datum.channels, height=datum.height, width=datum.width).SerializeToString()
            head += field_head(DATA_FIELD, len(datum.data))
            if value.startswith(head):
                self._head = head
                self._shape = (datum.channels, datum.height, datum.width)
        return self.array(datum, 0), datum.label if datum.HasField("label") else None

    def decode(self, values: Values, indices: np.ndarray, labelled: bool) -> Records:
        """Decodes records.

        values    the bytes of the records
        indices   (n) numbers of the records, for messages
        labelled  whether the records must have labels
        raises    DataError for a record that is cut off, is no Datum, or lacks its label
        """
        labels = np.zeros(len(values), np.int32) if labelled else None
        uniform = self._uniform(values, labels)
        return Records(self._parsed(values, indices, labels) if uniform is None else uniform, labels)

    def _uniform(self, values: Values, labels: np.ndarray | None) -> np.ndarray | None:
        """The pixels, copied without parsing: (n, C, H, W); None if the layout of a record is not that of the first one.

        [overwrites labels]
        """
        head = self._head
        if head is None:
            return None
        start = len(head)
        images = np.empty((len(values), self._shape[0] * self._shape[1] * self._shape[2]), np.uint8)
        tails = np.empty((len(values), LONGEST_TAIL), np.uint8)
        first = np.frombuffer(head, np.uint8)
        if not _unpack(values.data, values.begins, values.sizes, first, images, tails):
            return None
        ends = tails.tobytes()
        try:
            for i, length in enumerate((values.sizes - start - images.shape[1]).tolist()):
                label = self._label(ends[i * LONGEST_TAIL : i * LONGEST_TAIL + length])
                if labels is not None:
                    if label is None:
                        return None
                    labels[i] = label
        except DecodeError:
            return None
        return images.reshape(-1, *self._shape)

    def _label(self, tail: bytes) -> int | None:
        """The label in the bytes after the pixels, None without one; raises DecodeError if they contain anything else."""
        if tail in self._tails:
            return self._tails[tail]
        datum = pb.Datum.FromString(tail)
        plain = pb.Datum(encoded=False) if datum.HasField("encoded") else pb.Datum()
        if datum.HasField("label"):
            plain.label = datum.label
        if plain.SerializeToString() != tail:
            raise DecodeError("not only a label")
        if len(self._tails) < MOST_TAILS:
            self._tails[tail] = plain.label if plain.HasField("label") else None
        return plain.label if plain.HasField("label") else None

    def _parsed(self, values: Values, indices: np.ndarray, labels: np.ndarray | None) -> Images:
        """Parses records of any layout: one array if all have the same shape and type, else a list.  [overwrites labels]"""
        images = []
        for i, value in enumerate(values):
            index = int(indices[i])
            datum = self._parse(value, index)
            images.append(self.array(datum, index))
            if labels is not None:
                if not datum.HasField("label"):
                    raise DataError(f"record {index} has no label", path=self._path, hint=UNLABELLED)
                labels[i] = datum.label
        first = images[0]
        if all(image.shape == first.shape and image.dtype == first.dtype for image in images):
            return np.stack(images)
        return images

    def _parse(self, value: bytes, index: int) -> pb.Datum:
        datum = pb.Datum()
        try:
            datum.ParseFromString(value)
        except DecodeError as error:
            raise DataError(
                f"record {index} ({len(value)} bytes) is cut off or damaged: it is no Datum", path=self._path
            ) from error
        return datum

    def array(self, datum: pb.Datum, index: int) -> np.ndarray:
        """The pixels of record ``index``, a message: (C, H, W) uint8 or float32; raises DataError."""
        if datum.encoded:
            try:
                return decode_image(datum.data, self._color)
            except DataError as error:
                raise DataError(f"record {index}: {error.message}", path=self._path) from error
        shape = (datum.channels, datum.height, datum.width)
        values = len(datum.data) or len(datum.float_data)
        if min(shape) <= 0 or shape[0] * shape[1] * shape[2] != values:
            raise DataError(
                f"record {index} holds {values} values, but its size is given as {size_text(shape)}", path=self._path
            )
        if datum.data:
            return np.frombuffer(datum.data, np.uint8).reshape(shape)
        return np.array(datum.float_data, np.float32).reshape(shape)


@exact_kernel
def _unpack(
    data: np.ndarray,
    begins: np.ndarray,
    sizes: np.ndarray,
    head: np.ndarray,
    images: np.ndarray,
    tails: np.ndarray,
) -> bool:
    """Overwrites images with the pixels of records, and tails with the bytes after them. Returns False if a record does
    not begin with the head, or is shorter or longer than a head, the pixels and a tail can be."""
    end = len(head) + images.shape[1]
    for i in range(len(begins)):
        if not end <= sizes[i] <= end + tails.shape[1]:
            return False
        record = data[begins[i] : begins[i] + sizes[i]]
        for j in range(len(head)):
            if record[j] != head[j]:
                return False
        images[i] = record[len(head) : end]
        tails[i, : sizes[i] - end] = record[end:]
    return True
