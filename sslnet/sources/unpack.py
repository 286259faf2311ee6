"""Compressed files (gzip, xz), read within bounds: a few bytes of one can unpack to gigabytes."""

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
"""By the first two bytes of a file: what unpacks it, and how many times its size that can be."""
FAULTS = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError)
"""All that the readers of damaged archives raise, apart from OSError and ValueError."""


class Unpacked:
    """What a file unpacks to, from its begin to its end, no more than `limit` bytes of it. raises DataError beyond"""

    def __init__(self, file: IO[bytes], limit: int, path: str) -> None:
        self._file = file
        self._left = self._limit = limit
        self._path = path

    def read(self, size: int = -1) -> bytes:
        """The next bytes: fewer than size only at the end; all that is left when it is negative."""
        data = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f"holds more than {self._limit} bytes, which are the most that are read", path=self._path)
        return data


@contextlib.contextmanager
def open_unpacked(path: str | os.PathLike[str], limit: int) -> Iterator[Unpacked]:
    """A file, unpacked where its first bytes say that it is compressed, open while the block runs.

    limit   bytes of it that are given; of one that is not compressed all
    raises  DataError when it cannot be read, is damaged, or unpacks to more
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
