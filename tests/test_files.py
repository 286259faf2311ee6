import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sslnet.errors import DataError, DefinitionError, RunError, Span, UsageError
from sslnet.files import atomic_path, atomic_write, atomic_write_all, read_bytes, read_text, resolve, sole_user


def test_atomic_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [child.name for child in tmp_path.iterdir()] == ["a.bin"]


def test_atomic_write_gives_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    atomic_write(tmp_path / "a.bin", b"")
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_atomic_write_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_atomic_write_all_writes_each_file(tmp_path):
    atomic_write_all({str(tmp_path / "a"): b"1", str(tmp_path / "b"): b"2"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("wrong", ["a", "b"])
def test_atomic_write_all_writes_none_where_one_cannot_be_written(wrong, tmp_path):
    other = tmp_path / ({"a", "b"} - {wrong}).pop()
    other.write_bytes(b"old")
    (tmp_path / wrong).mkdir()
    with pytest.raises(RunError, match=f"cannot write .*{wrong}"):
        atomic_write_all({str(tmp_path / "a"): b"1", str(tmp_path / "b"): b"2"})
    assert other.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_atomic_path_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["a.h5"]


def test_atomic_path_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "plot.svg") as temporary:
        assert temporary.suffix == ".svg"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"")


def test_atomic_path_keeps_the_old_file_when_the_process_is_killed(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    code = (
        "import sys, time; from sslnet.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); print('there', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    with process:
        assert process.stdout.readline() == b"there\n"
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(0)
    assert path.read_bytes() == b"old"


def test_atomic_write_says_what_is_in_the_way(tmp_path):
    with pytest.raises(RunError, match=r"cannot write .*a.bin: there is no folder .*missing"):
        atomic_write(tmp_path / "missing" / "a.bin", b"")
    with pytest.raises(RunError, match="cannot write"):
        atomic_write(tmp_path, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """project/examples/mnist/solver.prototxt, and a working directory elsewhere."""
    folder = tmp_path / "project" / "examples" / "mnist"
    folder.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def test_resolve_takes_the_working_directory_first(tree):
    (tree / "examples" / "mnist" / "net.prototxt").touch()
    Path("net.prototxt").touch()
    assert resolve("net.prototxt", tree / "examples" / "mnist" / "solver.prototxt") == Path("net.prototxt")


def test_resolve_finds_a_file_beside_its_namer(tree):
    (tree / "examples" / "mnist" / "net.prototxt").touch()
    (tree / "net.prototxt").touch()
    found = tree / "examples" / "mnist" / "net.prototxt"
    assert resolve("net.prototxt", tree / "examples" / "mnist" / "solver.prototxt") == found
    assert resolve("net.prototxt", tree / "examples" / "mnist") == found
    assert resolve("net.prototxt", None, tree / "examples" / "mnist") == found


def test_resolve_finds_a_file_named_from_a_folder_above(tree):
    (tree / "examples" / "mnist" / "train_lmdb").mkdir()
    namer = tree / "examples" / "mnist" / "solver.prototxt"
    assert resolve("examples/mnist/train_lmdb", namer) == tree / "examples" / "mnist" / "train_lmdb"


def test_resolve_takes_an_absolute_name_as_it_is(tree):
    (tree / "mean.binaryproto").touch()
    assert resolve(str(tree / "mean.binaryproto"), "solver.prototxt") == tree / "mean.binaryproto"


def test_resolve_lists_the_places_it_looked_in(tree):
    span = Span("net.prototxt", 3, 5)
    with pytest.raises(DataError) as caught:
        resolve("mean.binaryproto", tree / "net.prototxt", span=span, layer="data")
    assert caught.value.message == 'there is no file "mean.binaryproto"'
    assert caught.value.hint.startswith(f"looked for mean.binaryproto, {tree / 'mean.binaryproto'}, ")
    assert (caught.value.span, caught.value.layer) == (span, "data")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000])
def test_resolve_of_what_is_no_name_is_an_error_of_the_kind_asked_for(name):
    with pytest.raises(DefinitionError):
        resolve(name, error=DefinitionError)


# -- locks ---------------------------------------------------------------------------------------------------------------


def test_lock_has_one_holder_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with sole_user(path, "the run"):
        assert path.exists()
        with pytest.raises(UsageError, match="the run is in use by another run"), sole_user(path, "the run"):
            pass
    assert not path.exists()
    with sole_user(path, "the run"):
        pass


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    code = f"import os, signal; from sslnet.files import sole_user\nwith sole_user({str(path)!r}, 'x'): os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.exists()
    with sole_user(path, "the run"):
        pass


def test_only_regular_files_are_read_and_within_bounds(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    assert read_bytes(tmp_path / "a.txt", limit=5) == b"words"
    with pytest.raises(DataError, match="has 5 bytes; at most 4 are read"):
        read_bytes(tmp_path / "a.txt", limit=4)
    with pytest.raises(DataError, match="it is a folder, not a file"):
        read_bytes(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read_text(tmp_path / "b.txt")
    with pytest.raises(DefinitionError, match="null byte"):
        read_text("a\0b", error=DefinitionError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_devices_and_fifos_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for place, kind in ((tmp_path / "fifo", "a FIFO"), ("/dev/zero", "a device")):
        with pytest.raises(DataError, match=f"it is {kind}, not a file"):
            read_bytes(place)


def test_what_a_file_of_the_system_gives_is_bounded_too():
    with pytest.raises(DataError, match="more than 10 bytes"):
        read_bytes("/proc/self/maps", limit=10)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("kind", ["fifo", "folder", "link to a fifo", "link to a folder"])
def test_only_files_are_replaced(tmp_path, kind):
    place = tmp_path / "place"
    real = tmp_path / "real" if kind.startswith("link") else place
    os.mkfifo(real) if kind.endswith("fifo") else real.mkdir()
    if real != place:
        place.symlink_to(real)
    before = stat.S_IFMT(real.lstat().st_mode)
    with pytest.raises(RunError, match=r"cannot write .*place: it is a (FIFO|folder), not a file"):
        atomic_write(place, b"data")
    assert stat.S_IFMT(real.lstat().st_mode) == before
    assert {child.name for child in tmp_path.iterdir()} == {place.name, real.name}
