"""Reads LMDB databases of Datum records, as made by Caffe's tools, in the order of the keys, and writes them.

A read-only folder is enough to read a database, and any number of nets may read it. A change of the database while it is
read is an error (see ``StableFile``).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb
import numpy as np

from sslnet.errors import DataError, RunError
from sslnet.files import sole_user
from sslnet.sources.datum import Values
from sslnet.sources.datum_source import DatumSource
from sslnet.sources.lmdb_tree import locate_records
from sslnet.sources.stable_file import StableFile

FIRST_MAP_SIZE = 16 << 20
RECORDS_A_COMMIT = 2000
LEAST_ROOM = 1 << 20
"""Number of free bytes below which the disk counts as full if a database cannot be written."""
LARGEST_RECORD = 2**31 - 1
"""Maximum number of bytes of a record, which is the limit of protobuf."""


class LmdbRecords:
    """The bytes of the records of one LMDB.

    path   its folder (or, for a database of a single file, the file)
    raises DataError if it is missing, cut off, damaged or empty, or changes while it is read
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = _open(self.path)
        try:
            self._offsets, self._sizes = locate_records(self._file)
        except ValueError as error:
            self._file.check()
            raise DataError(str(error), path=self.path) from error
        if not len(self):
            raise DataError("the database is empty", path=self.path)

    def __len__(self) -> int:
        return len(self._offsets)

    def values(self, indices: np.ndarray) -> Values:
        """The bytes of some records."""
        sizes = self._sizes[indices]
        if sizes.max() > LARGEST_RECORD:
            index = indices[sizes.argmax()]
            raise DataError(f"record {index} has {sizes.max()} bytes, more than any Datum", path=self.path)
        data, begins = self._file.read(self._offsets[indices], sizes)
        self._file.check()
        return Values(data, begins, sizes)


class LmdbSource(DatumSource):
    """The records of one LMDB, as Datums.

    path   as of LmdbRecords
    color  color mode of encoded records, as in ``decode_image``
    raises DataError if it is missing, cut off, damaged or empty, or changes while it is read
    """

    def __init__(self, path: str | os.PathLike[str], *, color: bool | None = None) -> None:
        super().__init__(LmdbRecords(path), color)


def _open(path: str) -> StableFile:
    """The file of a database."""
    place = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
    if not os.path.exists(place):
        levels = os.path.exists(os.path.join(path, "CURRENT"))
        hint = "it is a LevelDB: backend: LEVELDB" if levels else "a folder with an LMDB holds a file data.mdb"
        raise DataError("there is no LMDB in this folder", path=path, hint=hint)
    file = StableFile(place, path)
    if not file.size:
        raise DataError("cannot be read: the file is empty", path=path)
    return file


@contextlib.contextmanager
def lmdb_writer(path: str | os.PathLike[str]) -> Iterator[_Writer]:
    """Writes a new database at ``path``, under a temporary name beside it until it is complete.

        with lmdb_writer("mnist_train_lmdb") as write:
            write(b"00000000", value)

    After an exception in the block nothing remains. Files of a killed run are removed by the next one.
    raises RunError if the database cannot be written, and if ``path`` exists already; UsageError while another run is writing
    it
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}.part")
    with contextlib.ExitStack() as stack, _run_errors(target):
        if target.exists():
            raise FileExistsError("it exists already")
        target.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(sole_user(target.with_name(f".{target.name}.lock"), str(target)))
        for remains in target.parent.glob(f".{glob.escape(target.name)}-*.part"):
            _remove(remains)
        stack.callback(_remove, temporary)
        temporary.mkdir()
        writer = _Writer(temporary)
        try:
            yield writer
            writer.commit()
        finally:
            writer.close()
        (temporary / "lock.mdb").unlink(missing_ok=True)
        os.rename(temporary, target)


def _remove(folder: Path) -> None:
    """Removes the folder of an unfinished database, as far as possible. Needs no file descriptor, unlike shutil.rmtree."""
    with contextlib.suppress(OSError):
        for name in ("data.mdb", "lock.mdb"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


@contextlib.contextmanager
def _run_errors(target: Path) -> Iterator[None]:
    """Converts errors while a database is written to one RunError with its name and the cause."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        with contextlib.suppress(OSError):  # the library reports "Input/output error" if only a part could be written
            if isinstance(error, lmdb.Error) and shutil.disk_usage(target.parent).free < LEAST_ROOM:
                reason = os.strerror(errno.ENOSPC)
        raise RunError(f"cannot write {target}: {reason}") from error


def write_lmdb(path: str | os.PathLike[str], records: Iterable[tuple[bytes, bytes]]) -> int:
    """Writes a database of (key, value) pairs, as ``lmdb_writer`` does. returns their number"""
    count = 0
    with lmdb_writer(path) as write:
        for key, value in records:
            write(key, value)
            count += 1
    return count


class _Writer:
    """Collects records and commits them in groups; the map grows by doubling whenever a group does not fit."""

    def __init__(self, folder: Path) -> None:
        self._environment = lmdb.open(str(folder), map_size=FIRST_MAP_SIZE, sync=False, metasync=False)
        self._pending: list[tuple[bytes, bytes]] = []

    def __call__(self, key: bytes, value: bytes) -> None:
        self._pending.append((key, value))
        if len(self._pending) >= RECORDS_A_COMMIT:
            self.commit()

    def commit(self) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        self._pending.clear()

    def close(self) -> None:
        self._environment.sync(True)
        self._environment.close()
