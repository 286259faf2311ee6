"""LMDB databases of Datum records, as Caffe's tools make them: read in the order of the keys, and written.

A database is read through a map of its file: a read-only folder is enough, any number of nets may read it, and it must not be
written meanwhile.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb
import numpy as np

from sslnet.errors import DataError, RunError
from sslnet.sources.base import Records, Source
from sslnet.sources.datum import DatumDecoder
from sslnet.sources.lmdb_tree import locate_records, touch

FIRST_MAP_SIZE = 16 << 20
RECORDS_A_COMMIT = 2000


class LmdbSource(Source):
    """The records of one LMDB.

    path   its folder (or, made with another layout, the file)
    color  of encoded records, see decode_image
    raises DataError when it is missing, cut off, damaged or empty
    """

    def __init__(self, path: str | os.PathLike[str], *, color: bool | None = None) -> None:
        self.path = os.fspath(path)
        self._map = _map(self.path)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._view = memoryview(self._map)
        try:
            self._offsets, self._sizes = locate_records(self._bytes)
        except ValueError as error:
            raise DataError(str(error), path=self.path) from error
        if not len(self):
            raise DataError("the database is empty", path=self.path)
        self._decoder = DatumDecoder(self.path, color)
        image, label = self._decoder.first(self._value(0))
        self.shape = (image.shape[0], image.shape[1], image.shape[2])
        self.labelled = label is not None
        self.encoded = self._decoder.encoded

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, indices: np.ndarray, *, labels: bool = True) -> Records:
        touch(self._bytes, self._offsets[indices], self._sizes[indices])
        return self._decoder.decode([self._value(i) for i in indices.tolist()], indices, labels)

    def _value(self, index: int) -> memoryview:
        start = self._offsets[index]
        return self._view[start : start + self._sizes[index]]


def _map(path: str) -> mmap.mmap:
    """The file of a database, mapped for reading."""
    place = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
    if not os.path.exists(place):
        levels = os.path.exists(os.path.join(path, "CURRENT"))
        hint = "it is a LevelDB: backend: LEVELDB" if levels else "a folder with an LMDB holds a file data.mdb"
        raise DataError("there is no LMDB in this folder", path=path, hint=hint)
    try:
        with open(place, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the file is empty"
        raise DataError(f"cannot be read: {reason}", path=path) from error


@contextlib.contextmanager
def lmdb_writer(path: str | os.PathLike[str]) -> Iterator[_Writer]:
    """A new database at ``path``: made beside it under another name and put in place when it is complete.

        with lmdb_writer("mnist_train_lmdb") as write:
            write(b"00000000", value)

    An exception inside leaves nothing behind. Remains of a killed run are removed by the next one.
    raises RunError when it cannot be written, and when something is at ``path`` already
    """
    target = Path(path)
    for remains in target.parent.glob(f".{target.name}-*.part"):
        shutil.rmtree(remains, ignore_errors=True)
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}.part")
    try:
        if target.exists():
            raise FileExistsError("it exists already")
        temporary.mkdir(parents=True)
        writer = _Writer(temporary)
        try:
            yield writer
            writer.commit()
        finally:
            writer.close()
        (temporary / "lock.mdb").unlink(missing_ok=True)
        os.rename(temporary, target)
    except (lmdb.Error, OSError) as error:
        raise RunError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_lmdb(path: str | os.PathLike[str], records: Iterable[tuple[bytes, bytes]]) -> int:
    """Makes a database of (key, value) pairs, see lmdb_writer. returns their number"""
    count = 0
    with lmdb_writer(path) as write:
        for key, value in records:
            write(key, value)
            count += 1
    return count


class _Writer:
    """Collects records and commits them in lots; the map grows by doubling whenever a lot does not fit."""

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
