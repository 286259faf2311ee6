"""LevelDB, where the package for it is installed: the records of an LMDB read back the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError
from sslnet.sources.leveldb import LeveldbSource
from sslnet.sources.lmdb import LmdbSource

try:
    import plyvel
except ImportError:
    plyvel = None
needs_plyvel = pytest.mark.skipif(plyvel is None, reason="plyvel is not installed")
GOLDENS = Path(__file__).parent.parent / "goldens" / "data"


class FakeDatabase:
    """As much of plyvel.DB as is used, for where it is not installed: (key, value) pairs, of which all after the first
    `there` are gone."""

    there: int | None = None

    def __init__(self, path: str, create_if_missing: bool) -> None:
        assert not create_if_missing and Path(path, "CURRENT").exists()
        datums = [pb.Datum(channels=1, height=1, width=1, data=bytes([i]), label=i) for i in range(9)]
        self._records = {b"%d" % i: datum.SerializeToString() for i, datum in enumerate(datums)}

    def iterator(self, start: bytes = b"", include_key: bool = True, include_value: bool = True) -> Iterator[bytes]:
        return (
            value if include_value else key for key, value in list(self._records.items())[: self.there] if key >= start
        )

    def get(self, key: bytes) -> bytes:
        return self._records[key]


def test_a_leveldb_that_changes_while_it_is_read_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", SimpleNamespace(DB=FakeDatabase, Error=OSError))
    (tmp_path / "CURRENT").write_text("MANIFEST-000002\n")
    source = LeveldbSource(tmp_path)
    assert source.read(np.array([7, 8, 0])).labels.tolist() == [7, 8, 0]
    monkeypatch.setattr(FakeDatabase, "there", 8)
    with pytest.raises(DataError, match="has changed while it was read"):
        source.read(np.array([7, 8, 0]))
    monkeypatch.undo()
    (tmp_path / "CURRENT").write_text("MANIFEST-0000003\n")
    with pytest.raises(DataError, match="has changed while it was read"):
        source.read(np.array([0]))


@needs_plyvel
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


@needs_plyvel
def test_what_is_no_leveldb_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a database that can be opened"):
        LeveldbSource(tmp_path / "none")
