"""LMDB: what is written is read in the order of the keys; writing leaves all or nothing."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, RunError, UsageError
from sslnet.sources import lmdb as module
from sslnet.sources import stable_file
from sslnet.sources.lmdb import LmdbSource, lmdb_writer, write_lmdb
from sslnet.sources.lmdb_tree import locate_records
from sslnet.sources.stable_file import StableFile


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
    offsets, sizes = locate_records(StableFile(path))
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


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_branch_pages_without_entries_are_told(depth: int, tmp_path: Path) -> None:
    raw = bytearray(GOLDEN)
    for meta in (16, 4096 + 16):
        raw[meta + 78 : meta + 80] = depth.to_bytes(2, "little")
        raw[meta + 112 : meta + 120] = (2).to_bytes(8, "little")
    raw[2 * 4096 + 10 : 2 * 4096 + 14] = bytes([1, 0, 16, 0])  # page 2: a branch, its pointers end where they begin
    (tmp_path / "data.mdb").write_bytes(raw)
    with pytest.raises(DataError, match="the database is damaged: a page without entries"):
        LmdbSource(tmp_path)


def test_named_databases_inside_a_file_are_not_taken_for_records(tmp_path: Path) -> None:
    environment = lmdb.open(str(tmp_path), max_dbs=1)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a", b"b", db=environment.open_db(b"inner", transaction))
    environment.close()
    with pytest.raises(DataError, match="damaged: page"):
        LmdbSource(tmp_path)


# -- files that change while they are read -------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    os.truncate(path, 8192)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 4096)


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\1" * 4096)
    os.utime(path, ns=(1, 1))  # clocks of file systems are coarse


def _replace(path: Path) -> None:
    write_lmdb(path.parent.parent / "other", records(300))
    os.replace(path.parent.parent / "other" / "data.mdb", path)


def _remove(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("change", [_cut, _grow, _overwrite, _replace, _remove])
def test_a_database_that_changes_while_it_is_read_is_one_error(change, tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", records(300))
    source = LmdbSource(tmp_path / "db")
    source.read(np.arange(64))
    change(tmp_path / "db" / "data.mdb")
    for indices in (np.arange(64), np.array([299, 0, 150])):
        with pytest.raises(DataError, match=r"has (changed|been removed) while it was read") as caught:
            source.read(indices)
        assert caught.value.path == str(tmp_path / "db")


def test_a_database_may_be_read_from_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lmdb(tmp_path / "db", records(3))
    monkeypatch.chdir(tmp_path)
    source = LmdbSource("db")
    monkeypatch.chdir("/")
    assert source.read(np.arange(3)).labels.tolist() == [0, 1, 2]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux lists them")
def test_sources_close_their_files(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", records(3))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "data.mdb").write_bytes(b"x" * 10000)
    for _ in range(5):
        LmdbSource(tmp_path / "db").read(np.arange(3))
        with pytest.raises(DataError):
            LmdbSource(tmp_path / "bad")
    gc.collect()
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    assert not [link for link in links if link.is_symlink() and os.readlink(link).startswith(str(tmp_path))]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_reads_on_after_its_parent_has_closed_the_file(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", records(300))
    source = LmdbSource(tmp_path / "db")
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.read(ours, 1)
            good = source.read(np.arange(300)).labels.tolist() == list(range(300))
        finally:
            os._exit(0 if good else 1)
    assert source.read(np.arange(300)).labels.tolist() == list(range(300))
    del source
    os.write(theirs, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(ours)
    os.close(theirs)


@given(
    pieces=st.lists(st.tuples(st.integers(0, 99_000), st.integers(0, 1000)), min_size=1, max_size=30),
    gap=st.sampled_from([0, 100, 1 << 14]),
)
def test_pieces_of_a_file_are_those_asked_for(pieces, gap: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "numbers"
    raw = np.arange(50_000, dtype=np.uint16).tobytes()
    if not path.exists():
        path.write_bytes(raw)
    file = StableFile(path)
    starts, sizes = np.array(pieces, np.int64).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stable_file, "GAP", gap)
        for room in (None, np.empty(120_000, np.uint8)):
            data, places = file.read(starts, sizes, room)
            for (start, size), place in zip(pieces, places.tolist()):
                assert data[place : place + size].tobytes() == raw[start : start + size]


def test_two_runs_do_not_write_one_database_at_once(tmp_path):
    with lmdb_writer(tmp_path / "db") as write:
        write(b"0", b"first")
        with pytest.raises(UsageError, match="db is in use by another run"), lmdb_writer(tmp_path / "db") as other:
            other(b"0", b"second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db"]
    with pytest.raises(RunError, match="it exists already"), lmdb_writer(tmp_path / "db"):
        pass


def test_full_disk_is_named_as_the_cause(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise lmdb.Error("mdb_txn_commit: Input/output error")

    free = [0]
    monkeypatch.setattr(module._Writer, "commit", fail)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: SimpleNamespace(free=free[0]))
    with pytest.raises(RunError, match=r"cannot write .*db: No space left on device"):
        write_lmdb(tmp_path / "db", [(b"0", b"x")])
    free[0] = 1 << 40
    with pytest.raises(RunError, match=r"cannot write .*db: mdb_txn_commit: Input/output error"):
        write_lmdb(tmp_path / "db", [(b"0", b"x")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("free", [0, 1, 2, 3])
def test_without_free_descriptors_nothing_remains(tmp_path, free):
    """Whichever file cannot be opened: of the lock, the database and its readers' table."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    write_lmdb(tmp_path / "first", records(3))  # loads whatever is loaded at the first use
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(free):
            os.close(taken.pop())
        with pytest.raises(RunError, match="Too many open files"):
            write_lmdb(tmp_path / "db", records(3))
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]
