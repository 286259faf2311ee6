"""Datum: one record of a Caffe database, to arrays.

The records of one database nearly always begin with the same bytes (sizes, length of the pixels) and end with the label,
so that a record is recognised by comparing these, and its pixels are copied without parsing. Whatever looks different is
parsed as a message; the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.sources.base import Images, Records, size_text
from sslnet.sources.images import decode_image

DATA_FIELD = pb.Datum.DESCRIPTOR.fields_by_name["data"].number
LONGEST_TAIL = 16
"""Bytes behind the pixels: label and `encoded: false` need at most 13."""
MOST_TAILS = 100_000
UNLABELLED = "a layer with a single top reads databases without labels"


@dataclass(frozen=True)
class Values:
    """The bytes of some records: of each where it begins in `data`, and how many they are."""

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

    path    of the database, for messages
    color   of encoded records, see decode_image; raw ones are as they are
    """

    def __init__(self, path: str, color: bool | None = None) -> None:
        self._path = path
        self._color = color
        self._head: bytes | None = None
        self._shape: tuple[int, int, int] = (0, 0, 0)
        self._tails: dict[bytes, int | None] = {}
        """Label of each ending seen so far."""
        self.encoded = False
        """Whether the first record decoded was an image file."""

    def first(self, value: bytes) -> tuple[np.ndarray, int | None]:
        """The first record, (C, H, W) and its label; notes how it is laid out."""
        datum = self._parse(value, 0)
        self.encoded = datum.encoded
        if datum.data and not datum.encoded:
            head = pb.Datum(channels=datum.channels, height=datum.height, width=datum.width).SerializeToString()
            head += bytes([DATA_FIELD << 3 | 2]) + _varint(len(datum.data))
            if value.startswith(head):
                self._head = head
                self._shape = (datum.channels, datum.height, datum.width)
        return self._array(datum, 0), datum.label if datum.HasField("label") else None

    def decode(self, values: Values, indices: np.ndarray, labelled: bool) -> Records:
        """Records from their bytes.

        indices   their numbers, for messages
        labelled  whether they must have labels
        raises    DataError for one that is cut off, is no Datum, or lacks its label
        """
        labels = np.zeros(len(values), np.int32) if labelled else None
        uniform = self._uniform(values, labels)
        return Records(self._parsed(values, indices, labels) if uniform is None else uniform, labels)

    def _uniform(self, values: Values, labels: np.ndarray | None) -> np.ndarray | None:
        """The fast way: (n, C, H, W), or None when a record is not laid out as the first one."""
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
        """The label in the bytes behind the pixels, None without one; raises DecodeError when there is anything else."""
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
        """Any record: one array when all agree in shape and type, else a list."""
        images = []
        for i, value in enumerate(values):
            index = int(indices[i])
            datum = self._parse(value, index)
            images.append(self._array(datum, index))
            if labels is not None:
                if not datum.HasField("label"):
                    raise DataError(f"record {index} has no label", path=self._path, hint=UNLABELLED)
                labels[i] = datum.label
        first = images[0]
        if all(image.shape == first.shape and image.dtype == first.dtype for image in images):
            return np.stack(images)
        return images

    def _parse(self, value: bytes, index: int) -> Any:
        try:
            return pb.Datum.FromString(value)
        except DecodeError as error:
            raise DataError(
                f"record {index} ({len(value)} bytes) is cut off or damaged: it is no Datum", path=self._path
            ) from error

    def _array(self, datum: Any, index: int) -> np.ndarray:
        """(C, H, W) uint8 or float32."""
        if datum.encoded:
            try:
                return decode_image(datum.data, self._color)
            except DataError as error:
                raise DataError(f"record {index}: {error.message}", path=self._path) from error
        shape = (datum.channels, datum.height, datum.width)
        values = len(datum.data) or len(datum.float_data)
        if min(shape) <= 0 or shape[0] * shape[1] * shape[2] != values:
            raise DataError(
                f"record {index} holds {values} values, but says that it is {size_text(shape)}", path=self._path
            )
        if datum.data:
            return np.frombuffer(datum.data, np.uint8).reshape(shape)
        return np.array(datum.float_data, np.float32).reshape(shape)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@exact_kernel
def _unpack(data, begins, sizes, head, images, tails):
    """Overwrites images with the pixels of records and tails with what is behind them; False when a record does not begin
    with the head, or has another length than head, pixels and a tail can have."""
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
