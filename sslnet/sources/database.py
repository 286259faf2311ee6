"""Opens a database of any kind; the files on disk show the kind."""

from __future__ import annotations

import os

from sslnet.sources.base import DataSource
from sslnet.sources.builtin import SETS, builtin_source


def open_database(path: str | os.PathLike[str], *, color: bool | None = None) -> DataSource:
    """Opens an LMDB, a LevelDB, or by its name a data set included in the package.

    color   color mode of encoded records, as in ``decode_image``
    raises  DataError if the database is missing, damaged or empty
    """
    name = os.fspath(path)
    if name in SETS and not os.path.exists(name):
        return builtin_source(name)
    if os.path.exists(os.path.join(name, "CURRENT")):
        from sslnet.sources.leveldb import LeveldbSource

        return LeveldbSource(name, color=color)
    from sslnet.sources.lmdb import LmdbSource

    return LmdbSource(name, color=color)
