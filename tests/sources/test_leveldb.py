"""LevelDB, where the package for it is installed: the records of an LMDB read back the same."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest

from sslnet.errors import DataError
from sslnet.sources.leveldb import LeveldbSource
from sslnet.sources.lmdb import LmdbSource

plyvel = pytest.importorskip("plyvel")
GOLDENS = Path(__file__).parent.parent / "goldens" / "data"


@pytest.mark.parametrize("name", ["raw_lmdb", "encoded_png_lmdb", "float_lmdb"])
def test_leveldb_gives_the_records_of_the_same_lmdb(name: str, tmp_path: Path) -> None:
    database = plyvel.DB(str(tmp_path / "db"), create_if_missing=True)
    environment = lmdb.open(str(GOLDENS / name), readonly=True, lock=False)
    with environment.begin() as transaction:
        for key, value in transaction.cursor():
            database.put(key, value)
    environment.close()
    database.close()
    ours, expected = LeveldbSource(tmp_path / "db"), LmdbSource(GOLDENS / name)
    assert (len(ours), ours.shape, ours.labelled, ours.encoded) == (
        len(expected),
        expected.shape,
        expected.labelled,
        expected.encoded,
    )
    for indices in ([0, 1, 2], [len(ours) - 1, 0, 1], [5, 3]):
        a, b = ours.read(np.array(indices)), expected.read(np.array(indices))
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_what_is_no_leveldb_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a database that can be opened"):
        LeveldbSource(tmp_path / "none")
