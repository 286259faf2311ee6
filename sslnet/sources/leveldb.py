"""Reads LevelDB databases of Datum records with the package `plyvel`; without it, an error tells how to convert them.

sslnet does not depend on plyvel: it has no wheels for some systems, and LMDB holds the same records.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import Any

import numpy as np

from sslnet.errors import DataError
from sslnet.sources.datum import Values
from sslnet.sources.datum_source import DatumSource
from sslnet.sources.stable_file import Identity

CONVERT = (
    "`pip install plyvel` where it has a wheel for your system; or make an LMDB of it: Caffe's convert_imageset --backend=lmdb, "
    "or copy its keys and values as they are into an LMDB"
)


class LeveldbRecords:
    """The bytes of the records of one LevelDB, in the order of the keys. Not safe for use by two threads at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if os.path.exists(os.path.join(self.path, "data.mdb")):
            raise DataError(
                "this is an LMDB, and the backend is LEVELDB (which is the default)",
                path=self.path,
                hint="add backend: LMDB",
            )
        try:
            import plyvel
        except ImportError:
            raise DataError("LevelDB databases cannot be read here", path=self.path, hint=CONVERT) from None
        self._errors = (plyvel.Error, OSError)
        try:
            self._database: Any = plyvel.DB(self.path, create_if_missing=False)
            self._keys = list(self._database.iterator(include_value=False))
        except self._errors as error:
            raise DataError(f"is not a database that can be opened: {_text(error)}", path=self.path) from error
        # Opening writes it; afterwards it stays as it is, unless another program opens the database or puts one in its place.
        self._identity = Identity(os.path.join(self.path, "CURRENT"), self.path)
        if not self._keys:
            raise DataError("the database is empty", path=self.path)

    def __len__(self) -> int:
        return len(self._keys)

    def values(self, indices: np.ndarray) -> Values:
        """The bytes of some records."""
        values: list[bytes] = []
        try:
            for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1):
                start = self._keys[int(run[0])]
                values += islice(self._database.iterator(start=start, include_key=False), len(run))
        except self._errors as error:
            raise DataError(f"the database cannot be read: {_text(error)}", path=self.path) from error
        self._identity.check()
        if len(values) < len(indices):
            raise self._identity.changed()
        return Values.of(values)


class LeveldbSource(DatumSource):
    """The records of one LevelDB, as Datums, in the order of the keys. Not safe for use by two threads at once."""

    def __init__(self, path: str | os.PathLike[str], *, color: bool | None = None) -> None:
        super().__init__(LeveldbRecords(path), color)


def _text(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
