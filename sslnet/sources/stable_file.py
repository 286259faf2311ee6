"""Files that are read over a whole run, and must be the same files at its end: what has changed is told, never used.

A file is known by its device, its inode, its size and the time it was last written; looking costs some microseconds, so it
is done for every batch, after its bytes were read: what was read before the look is of the file as it was at first.
"""

from __future__ import annotations

import os
import weakref

import numpy as np

from sslnet.errors import DataError
from sslnet.files import open_regular

GAP = 1 << 14
"""Bytes between two pieces up to which they are read at once, with what is between them; as fast as a second read."""
LARGEST_FILE = 1 << 62


class Identity:
    """Which file it is that a path names when this is made.

    path   of the file
    shown  what the user calls it, for messages
    raises DataError when there is none
    """

    def __init__(self, path: str | os.PathLike[str], shown: str | None = None) -> None:
        self._path = os.path.abspath(path)  # it may be looked for from another working directory later on
        self.shown = os.fspath(path) if shown is None else shown
        try:
            self._mark = _mark(os.stat(self._path))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}", path=self.shown) from error

    def check(self) -> None:
        """raises DataError unless the path still names the same file, with the same contents as far as can be seen"""
        try:
            same = _mark(os.stat(self._path)) == self._mark
        except OSError:
            raise DataError("has been removed while it was read", path=self.shown) from None
        if not same:
            raise self.changed()

    def changed(self) -> DataError:
        return DataError("has changed while it was read", path=self.shown)

    def is_of(self, handle: int) -> bool:
        """Whether an open file is that one."""
        return _mark(os.fstat(handle)) == self._mark


class StableFile:
    """A regular file, read at any place by any thread, also after a fork; closed with its last reference.

    size   in bytes
    raises DataError when it cannot be read, has become shorter, or is not what it was when it was opened

    It is read into memory, never mapped: of a mapped file that is cut off, a look at what is missing kills the process.
    """

    def __init__(self, path: str | os.PathLike[str], shown: str | None = None) -> None:
        self._identity = Identity(path, shown)
        self.shown = self._identity.shown
        try:
            file = open_regular(path, limit=LARGEST_FILE)
        except DataError as error:
            raise DataError(error.message, path=self.shown, hint=error.hint) from error
        weakref.finalize(self, file.close)
        self._handle = file.fileno()
        self.size = os.fstat(self._handle).st_size
        if not self._identity.is_of(self._handle):
            raise self._identity.changed()

    def check(self) -> None:
        """raises DataError when the file was removed, replaced or written to, see Identity"""
        self._identity.check()

    def read(
        self, starts: np.ndarray, sizes: np.ndarray, room: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pieces of the file. Those that lie close together are one read: a batch of records side by side is a single one.

        starts, sizes   (n) int64; n at least 1
        room            uint8, where the bytes go if they fit: memory that is used again and again costs no page faults
        returns         the bytes read, uint8; and where each piece begins among them, (n) int64
        """
        order = np.argsort(starts, kind="stable")
        begins = starts[order]
        ends = np.maximum.accumulate(begins + sizes[order])
        cuts = np.flatnonzero(begins[1:] - ends[:-1] > GAP)
        begins, ends = begins[np.append(0, cuts + 1)], ends[np.append(cuts, -1)]
        lengths = ends - begins
        places = np.cumsum(lengths) - lengths
        total = int(places[-1] + lengths[-1])
        if room is not None and total <= len(room):
            data = room[:total]
            for begin, place, length in zip(begins.tolist(), places.tolist(), lengths.tolist()):
                self._fill(data[place : place + length].data, begin)
        else:
            data = np.frombuffer(self._runs(begins.tolist(), lengths.tolist()), np.uint8)
        return data, starts + (places - begins)[np.searchsorted(begins, starts, side="right") - 1]

    def _runs(self, begins: list[int], lengths: list[int]) -> bytes:
        """The bytes of each run, one after the other."""
        try:
            data = b"".join([os.pread(self._handle, length, begin) for begin, length in zip(begins, lengths)])
        except OSError as error:
            raise self._unreadable(error) from error
        if len(data) == sum(lengths):
            return data
        parts = [bytearray(length) for length in lengths]  # the file ends before, or the system gives no more at once
        for begin, part in zip(begins, parts):
            self._fill(memoryview(part), begin)
        return b"".join(parts)

    def _fill(self, view: memoryview, begin: int) -> None:
        """Overwrites view with the bytes from begin on."""
        while view:
            try:
                count = os.preadv(self._handle, [view], begin)
            except OSError as error:
                raise self._unreadable(error) from error
            if not count:
                self.check()
                raise self._identity.changed()
            view, begin = view[count:], begin + count

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"cannot be read: {error.strerror or error}", path=self.shown)


def _mark(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
