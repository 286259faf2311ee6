"""Arrays in files of NumPy, .npy and .npz, read row by row: a file may be larger than the memory.

Rows of .npy and of stored members of .npz (``numpy.savez``) are read where they are, with StableFile; members that are
compressed (``numpy.savez_compressed``) are unpacked to memory, within bounds. Pickled objects are never read.
"""

from __future__ import annotations

import math
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np

from sslnet.errors import DataError
from sslnet.files import open_regular
from sslnet.sources.base import size_text
from sslnet.sources.stable_file import LARGEST_FILE, StableFile

MOST_MEMBERS = 256
"""Maximum number of arrays of an .npz."""
UNPACKED = 1 << 30
"""Number of bytes that the compressed arrays of a file may unpack to in any case; larger ones to RATIO times the file's
size."""
RATIO = 100
MOST_DIMENSIONS = 32
LOCAL_HEADER = 30
"""Bytes of the header of a member of a zip file before its name."""


class Header(NamedTuple):
    """The header of an .npy: shape, type of the values, and where they begin, in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype
    begin: int

    @property
    def size(self) -> int:
        """Number of bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


class RowArray(ABC):
    """An array, read by rows (indices of its first axis).

    shape, dtype  of the whole array
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @abstractmethod
    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The rows of the given indices: (n, ...). raises DataError if the file cannot be read or has changed"""


class MemoryRows(RowArray):
    """An array in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self._array = array

    def rows(self, indices: np.ndarray) -> np.ndarray:
        result: np.ndarray = self._array[indices]
        return result


class FileRows(RowArray):
    """An array whose values stand in a file, in the order of C."""

    def __init__(self, file: StableFile, header: Header) -> None:
        self.shape, self.dtype = header.shape, header.dtype
        self._file = file
        self._begin = header.begin
        self._row = math.prod(self.shape[1:]) * self.dtype.itemsize

    def rows(self, indices: np.ndarray) -> np.ndarray:
        sizes = np.full(len(indices), self._row, np.int64)
        data, places = self._file.read(self._begin + indices.astype(np.int64) * self._row, sizes)
        self._file.check()
        if (np.diff(places) == self._row).all():
            raw = data[places[0] : places[0] + len(indices) * self._row]
        else:
            raw = np.concatenate([data[place : place + self._row] for place in places.tolist()])
        return raw.view(self.dtype).reshape(len(indices), *self.shape[1:])


def open_npy(path: str | os.PathLike[str], shown: str | None = None) -> RowArray:
    """Opens the array of an .npy file; shown: its name for messages. raises DataError if it is none, or is cut off"""
    file = StableFile(path, shown)
    with open_regular(path, limit=LARGEST_FILE) as stream:
        header = read_header(stream, file.shown)
    _check_room(header, file.size - header.begin, file.shown)
    return FileRows(file, header)


class Npz(Mapping[str, RowArray]):
    """The arrays of an .npz file, by name; an array is read when it is asked for.

    shapes  name -> shape of each array of numbers
    raises  DataError if the file is none, or is damaged
    """

    def __init__(self, path: str | os.PathLike[str], shown: str | None = None) -> None:
        self._file = StableFile(path, shown)
        self.shown = self._file.shown
        self._path = os.fspath(path)
        self._members: dict[str, tuple[zipfile.ZipInfo, Header]] = {}
        with self._archive() as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if not members or len(members) > MOST_MEMBERS:
                what = "there are no arrays in it" if not members else f"it has more than {MOST_MEMBERS} arrays"
                raise DataError(f"is not an .npz file of images: {what}", path=self.shown)
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    header = read_header(stream, f"{self.shown}: {name}")
                _check_room(header, member.file_size - header.begin, f"{self.shown}: {name}")
                self._members[name] = (member, header)
        self.shapes = {name: header.shape for name, (_, header) in self._members.items()}
        self._file.check()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> RowArray:
        member, header = self._members[name]
        if member.compress_type == zipfile.ZIP_STORED:
            return FileRows(self._file, header._replace(begin=self._begin(member, header)))
        limit = max(UNPACKED, RATIO * self._file.size)
        if header.size > limit:
            raise DataError(
                f'the compressed array "{name}" has {header.size} bytes; at most {limit} are unpacked',
                path=self.shown,
                hint="write it with numpy.savez instead of savez_compressed: then any size can be read",
            )
        with self._archive() as archive, archive.open(member) as stream:
            stream.read(header.begin)
            values = np.empty(header.size, np.uint8)
            got = 0
            while got < header.size:
                part = stream.read(min(1 << 24, header.size - got))
                if not part:
                    raise EOFError("it is cut off")
                values[got : got + len(part)] = np.frombuffer(part, np.uint8)
                got += len(part)
            stream.read(1)  # the end of the member: its checksum is compared
        self._file.check()
        return MemoryRows(values.view(header.dtype).reshape(header.shape))

    def _begin(self, member: zipfile.ZipInfo, header: Header) -> int:
        """The place in the file of the values of a stored member."""
        place = np.array([member.header_offset], np.int64)
        if member.header_offset < 0 or member.header_offset + LOCAL_HEADER > self._file.size:
            raise self._damaged("its directory is wrong")
        raw, _ = self._file.read(place, np.array([LOCAL_HEADER], np.int64))
        lengths = raw[26:30].view("<u2")
        begin = member.header_offset + LOCAL_HEADER + int(lengths[0]) + int(lengths[1]) + header.begin
        if begin + header.size > self._file.size:
            raise self._damaged("it is cut off")
        return begin

    def _archive(self) -> _Archive:
        return _Archive(self._path, self.shown)

    def _damaged(self, why: str) -> DataError:
        return DataError(f"is not an .npz file, or is damaged: {why}", path=self.shown)


class _Archive:
    """A zip file that is open for a block; whatever a damaged one raises becomes a DataError."""

    def __init__(self, path: str, shown: str) -> None:
        self._path, self._shown = path, shown

    def __enter__(self) -> zipfile.ZipFile:
        self._file = open_regular(self._path, limit=LARGEST_FILE)
        try:
            return zipfile.ZipFile(self._file)
        except Exception as error:  # damaged directories raise almost anything
            self._file.close()
            raise DataError(f"is not an .npz file, or is damaged: {error}", path=self._shown) from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, Exception) and not isinstance(error, (DataError, MemoryError)):
            raise DataError(f"is not an .npz file, or is damaged: {error}", path=self._shown) from error


def parse_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether it is stored column by column, type) at the beginning of an .npy. raises almost anything for a
    damaged one: that is NumPy's reader"""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):  # 3: with names of fields that are no Latin letters
        raise ValueError(f"its version is {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(stream)
    return found


def read_header(stream: IO[bytes], shown: str) -> Header:
    """Reads the header at the beginning of an .npy. raises DataError if it is none, or its values are no numbers"""
    try:
        shape, by_columns, dtype = parse_header(stream)
    except Exception as error:  # the reader of .npy headers raises almost anything for damaged ones
        raise DataError(f"is not an .npy file: {error}", path=shown) from error
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        what = "Python objects" if dtype.hasobject else f"values of type {dtype}"
        raise DataError(f"holds {what}; whole and real numbers of at most 64 bits are read", path=shown)
    if len(shape) > MOST_DIMENSIONS or min(shape, default=0) < 0:
        raise DataError(f"is not an .npy file: its shape is {shape}", path=shown)
    if by_columns and sum(size > 1 for size in shape) > 1:
        raise DataError(
            f"the array of {size_text(shape)} is stored in the order of Fortran, whose rows are scattered",
            path=shown,
            hint="write numpy.ascontiguousarray(array)",
        )
    return Header(tuple(int(size) for size in shape), dtype, stream.tell())


def _check_room(header: Header, room: int, shown: str) -> None:
    if header.size > room:
        raise DataError(
            f"is cut off: {size_text(header.shape)} values of type {header.dtype} are announced, {header.size} bytes, "
            f"but {max(0, room)} bytes are there",
            path=shown,
        )
