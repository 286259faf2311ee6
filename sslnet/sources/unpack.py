"""Reads compressed files (gzip, xz) within bounds: a file of a few bytes can unpack to gigabytes."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from sslnet.errors import DataError
from sslnet.files import open_regular

OPENERS: dict[bytes, tuple[Callable[..., Any], int]] = {b"\x1f\x8b": (gzip.open, 1100), b"\xfd7": (lzma.open, 8000)}
"""First two bytes of a file -> function that unpacks it, and the maximum ratio of unpacked to packed size."""
FAULTS = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError)
"""Errors that the readers of damaged archives raise, apart from OSError and ValueError."""


class Unpacked:
    """The unpacked bytes of a file, read in order, at most `limit` bytes. raises DataError beyond"""

    def __init__(self, file: IO[bytes], limit: int, path: str) -> None:
        self._file = file
        self._left = self._limit = limit
        self._path = path

    def read(self, size: int = -1) -> bytes:
        """The next bytes: fewer than ``size`` only at the end; all remaining bytes if ``size`` is negative."""
        data = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f"holds more than {self._limit} bytes, which are the most that are read", path=self._path)
        return data


@contextlib.contextmanager
def open_unpacked(path: str | os.PathLike[str], limit: int) -> Iterator[Unpacked]:
    """Opens a file for the duration of the block; unpacks it if its first bytes show that it is compressed.

    limit   maximum number of unpacked bytes; a file that is not compressed is read completely
    raises  DataError if the file cannot be read, is damaged, or unpacks to more
    """
    name = os.fspath(path)
    with open_regular(name) as file:
        try:
            start, size = file.read(2), os.fstat(file.fileno()).st_size
            file.seek(0)
            if start in OPENERS:
                opener, ratio = OPENERS[start]
                with opener(file) as stream:
                    yield Unpacked(stream, min(limit, ratio * size), name)
            else:
                yield Unpacked(file, size, name)
        except FAULTS as error:
            raise DataError("the compressed file is cut off or damaged", path=name) from error
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", path=name) from error
