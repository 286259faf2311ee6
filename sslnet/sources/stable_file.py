"""Files that are read during a whole run and must not change: a change is reported, and changed data are never used.

A file is identified by its device, inode, size and time of the last write. A check takes some microseconds, so it is made
for every batch after its bytes were read: bytes that were read before a check are of the original file.
"""

from __future__ import annotations

import os
import weakref

import numpy as np

from sslnet.errors import DataError
from sslnet.files import open_regular

GAP = 1 << 14
"""Maximum number of bytes between two pieces that are read together with the bytes between them; as fast as a second
read."""
LARGEST_FILE = 1 << 62


class Identity:
    """The identity of the file that a path names at the time of the call.

    path   path of the file
    shown  name given by the user, for messages
    raises DataError if there is no file
    """

    def __init__(self, path: str | os.PathLike[str], shown: str | None = None) -> None:
        self._path = os.path.abspath(path)  # a later check may run in another working directory
        self.shown = os.fspath(path) if shown is None else shown
        try:
            self._mark = _mark(os.stat(self._path))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}", path=self.shown) from error

    def check(self) -> None:
        """Checks that the path still names the same file with the same contents, as far as the identity shows; raises
        DataError if not."""
        try:
            same = _mark(os.stat(self._path)) == self._mark
        except OSError:
            raise DataError("has been removed while it was read", path=self.shown) from None
        if not same:
            raise self.changed()

    def changed(self) -> DataError:
        return DataError("has changed while it was read", path=self.shown)

    def is_of(self, handle: int) -> bool:
        """Whether an open file is this file."""
        return _mark(os.fstat(handle)) == self._mark


class StableFile:
    """A regular file, read at any place by any thread, also after a fork; closed with its last reference.

    size   size in bytes
    raises DataError if the file cannot be read, has become shorter, or has changed since it was opened

    The file is read into memory, never mapped: access to the missing part of a mapped file that is cut off ends the process.
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
        """Checks the file as ``Identity.check`` does; raises DataError if it was removed, replaced or written to."""
        self._identity.check()

    def read(
        self, starts: np.ndarray, sizes: np.ndarray, room: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads pieces of the file. Pieces close to each other are read together, so that adjacent records are one read.

        starts, sizes   (n) int64; n at least 1
        room            uint8 buffer for the bytes, used if they fit: reused memory causes no page faults
        returns         the bytes read, uint8; and the place of each piece in them, (n) int64
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
        """Reads runs of bytes, one after the other."""
        try:
            data = b"".join([os.pread(self._handle, length, begin) for begin, length in zip(begins, lengths)])
        except OSError as error:
            raise self._unreadable(error) from error
        if len(data) == sum(lengths):
            return data
        parts = [
            bytearray(length) for length in lengths
        ]  # the file ends before, or the system returns fewer bytes at once
        for begin, part in zip(begins, parts):
            self._fill(memoryview(part), begin)
        return b"".join(parts)

    def _fill(self, view: memoryview, begin: int) -> None:
        """Reads the bytes from ``begin`` on into view.  [overwrites view]"""
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
