"""A database whichever kind it is: what is on disk tells."""

from __future__ import annotations

import os

from sslnet.sources.base import DataSource
from sslnet.sources.builtin import SETS, builtin_source


def open_database(path: str | os.PathLike[str], *, color: bool | None = None) -> DataSource:
    """An LMDB, a LevelDB, or a data set that ships inside the package by its name.

    color   of encoded records, see decode_image
    raises  DataError when it is missing, damaged or empty
    """
    name = os.fspath(path)
    if name in SETS and not os.path.exists(name):
        return builtin_source(name)
    if os.path.exists(os.path.join(name, "CURRENT")):
        from sslnet.sources.leveldb import LeveldbSource

        return LeveldbSource(name, color=color)
    from sslnet.sources.lmdb import LmdbSource

    return LmdbSource(name, color=color)
