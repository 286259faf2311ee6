"""LMDB: what is written is read in the order of the keys; writing leaves all or nothing."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, RunError
from sslnet.sources import lmdb as module
from sslnet.sources.lmdb import LmdbSource, write_lmdb
from sslnet.sources.lmdb_tree import locate_records


def records(count: int, size: int = 4) -> list[tuple[bytes, bytes]]:
    made = []
    for i in range(count):
        datum = pb.Datum(channels=1, height=1, width=size, data=bytes([i % 256]) * size, label=i)
        made.append((f"{i:05d}".encode(), datum.SerializeToString()))
    return made


def test_records_are_read_by_any_indices(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", reversed(records(300)))
    source = LmdbSource(tmp_path / "db")
    assert (len(source), source.shape, source.labelled) == (300, (1, 1, 4), True)
    for indices in ([0, 1, 2], [3, 4, 5], [298, 299, 0, 1], [7], [250, 249, 248], [8, 9], [5, 5]):
        found = source.read(np.array(indices))
        assert found.labels.tolist() == indices
        assert found.images[:, 0, 0, 0].tolist() == [i % 256 for i in indices]


def test_the_map_grows_with_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_MAP_SIZE", 1 << 16)
    monkeypatch.setattr(module, "RECORDS_A_COMMIT", 10)
    assert write_lmdb(tmp_path / "db", records(95, 5000)) == 95
    assert LmdbSource(tmp_path / "db").read(np.arange(95)).labels.tolist() == list(range(95))


def test_a_database_is_as_small_as_a_file_with_one(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", records(3))
    assert [path.name for path in (tmp_path / "db").iterdir()] == ["data.mdb"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_interrupted_writing_leaves_nothing(failure: type[BaseException], tmp_path: Path) -> None:
    def some():
        yield from records(3000)
        raise failure

    with pytest.raises(failure):
        write_lmdb(tmp_path / "db", some())
    assert list(tmp_path.iterdir()) == []


def test_remains_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".db-01234567.part").mkdir()
    (tmp_path / ".db-01234567.part" / "data.mdb").write_bytes(b"x")
    write_lmdb(tmp_path / "db", records(3))
    assert [path.name for path in tmp_path.iterdir()] == ["db"]


def test_an_existing_database_is_not_overwritten(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", records(3))
    with pytest.raises(RunError, match="it exists already"):
        write_lmdb(tmp_path / "db", records(5))
    assert len(LmdbSource(tmp_path / "db")) == 3


def test_a_database_that_is_one_file_is_read(tmp_path: Path) -> None:
    environment = lmdb.open(str(tmp_path / "one.mdb"), subdir=False)
    with environment.begin(write=True) as transaction:
        for key, value in records(3):
            transaction.put(key, value)
    environment.close()
    assert LmdbSource(tmp_path / "one.mdb").read(np.arange(3)).labels.tolist() == [0, 1, 2]


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(b"x" * 10000)
    with pytest.raises(DataError, match="is not an LMDB"):
        LmdbSource(tmp_path / "db")
    (tmp_path / "db" / "data.mdb").write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        LmdbSource(tmp_path / "db")
    (tmp_path / "level").mkdir()
    (tmp_path / "level" / "CURRENT").write_bytes(b"MANIFEST-000002")
    with pytest.raises(DataError) as caught:
        LmdbSource(tmp_path / "level")
    assert "it is a LevelDB" in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    entries=st.dictionaries(st.binary(min_size=1, max_size=60), st.integers(0, 9000), max_size=200),
    deleted=st.integers(0, 20),
)
def test_records_are_found_where_the_library_finds_them(entries, deleted: int, tmp_path: Path) -> None:
    """Trees of any depth, values of any size, pages that were freed and used again."""
    path = tmp_path / "db.mdb"
    path.unlink(missing_ok=True)
    environment = lmdb.open(str(path), subdir=False, lock=False, sync=False)
    with environment.begin(write=True) as transaction:
        for number, (key, size) in enumerate(entries.items()):
            transaction.put(key, bytes([number % 256]) * size)
    with environment.begin(write=True) as transaction:
        for key in list(entries)[:deleted]:
            transaction.delete(key)
    with environment.begin() as transaction:
        expected = [bytes(value) for _, value in transaction.cursor()]
    environment.close()
    data = np.fromfile(path, np.uint8)
    offsets, sizes = locate_records(data)
    assert [data[start : start + size].tobytes() for start, size in zip(offsets, sizes)] == expected


GOLDEN = (Path(__file__).parent.parent / "goldens" / "data" / "raw_lmdb" / "data.mdb").read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(data=st.data())
def test_mutated_databases_give_records_or_one_error(data, tmp_path: Path) -> None:
    raw = bytearray(GOLDEN)
    page = st.integers(0, len(raw) // 4096 - 1).map(lambda number: number * 4096)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, len(raw) - 1), st.builds(int.__add__, page, st.integers(0, 63))))
        raw[at] = data.draw(st.one_of(st.sampled_from([0, 255]), st.integers(0, 255)))
    if data.draw(st.integers(0, 9)) == 0:
        del raw[data.draw(st.integers(0, len(raw))) :]
    (tmp_path / "data.mdb").write_bytes(raw)
    try:
        source = LmdbSource(tmp_path)
        source.read(np.arange(len(source)))
    except DataError as error:
        assert error.path == str(tmp_path)


def test_named_databases_inside_a_file_are_not_taken_for_records(tmp_path: Path) -> None:
    environment = lmdb.open(str(tmp_path), max_dbs=1)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a", b"b", db=environment.open_db(b"inner", transaction))
    environment.close()
    with pytest.raises(DataError, match="damaged: page"):
        LmdbSource(tmp_path)
