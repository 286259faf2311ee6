"""Full disks: a run whose snapshot cannot be written, and HDF5, which must not meet one itself.

A limit on the size of files stands for the disk: writing beyond it fails as on a full one, with another errno.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, RunError, UsageError
from sslnet.files import atomic_hdf5, atomic_write, remove_remains
from sslnet.net.weights import read_weights
from sslnet.prototxt import Diagnostic
from sslnet.solver.callbacks import Monitor
from sslnet.solver.snapshot import read_state
from sslnet.solver.snapshots import Snapshots
from sslnet.solver.solver import Solver

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="file sizes cannot be limited here")

NET = """\
layer { name: "d" type: "DummyData" top: "x" top: "label"
  dummy_data_param { shape { dim: 4 dim: 50 } shape { dim: 4 } data_filler { type: "gaussian" } data_filler { } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 40 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 6 snapshot: 2 snapshot_prefix: "run/r" random_seed: 1'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def limited(limit: int, code: str) -> subprocess.CompletedProcess:
    """Runs Python code in a process whose files cannot become longer than ``limit`` bytes."""
    head = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "0"}
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, env=environment)


class Warnings(Monitor):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_warning(self, note: Diagnostic) -> None:
        self.messages.append(note.message)


def solver(*fields: str, **options) -> Solver:
    return Solver(prototxt.apply_overrides(prototxt.parse(SOLVER, pb.SolverParameter), list(fields)), **options)


def block(folder: str) -> None:
    """Puts a file where a folder is needed: nothing can be written below it, not even by root."""
    Path(folder).write_text("")


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_process_that_cannot_write_its_snapshot_ends_with_an_error(form: str, folder: Path) -> None:
    code = (
        "from sslnet import prototxt; from sslnet.solver.solver import Solver; from sslnet.errors import RunError\n"
        "import tempfile; tempfile.tempdir = '.'\n"
        f"d = prototxt.apply_overrides(prototxt.read_solver('solver.prototxt'), ['snapshot_format={form}'])\n"
        "s = Solver(d)\n"
        "try: s.snapshot()\n"
        "except RunError as error: print(error)\n"
    )
    done = limited(3000, code)
    assert done.returncode == 0, done.stderr
    assert "cannot write run/r_iter_0.caffemodel" in done.stdout
    assert "File too large" in done.stdout
    assert "Traceback" not in done.stderr
    assert os.listdir("run") == []


@pytest.mark.parametrize(("command", "limit"), [("extract", 3 << 20), ("extract", 610), ("test", 3 << 20)])
def test_command_that_cannot_write_rows_ends_with_an_error(command: str, limit: int, folder: Path) -> None:
    output = (
        'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "label" hdf5_output_param { file_name: "o.h5" } }'
    )
    (folder / "out.prototxt").write_text(NET + output)
    solver().snapshot()
    what = {
        "extract": "['extract', '--model', 'net.prototxt', '--blobs', 'x', '--output', 'o.h5'",
        "test": "['test', '--model', 'out.prototxt'",
    }
    code = f"import sys; from sslnet.cli import main\nsys.exit(main({what[command]}, '--weights', 'run/r_iter_0.caffemodel', '--iterations', '2000']))"
    done = limited(limit, code)
    assert done.returncode == 1, done.stderr
    assert "cannot write o.h5: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    if command == "extract":
        assert sorted(os.listdir()) == ["net.prototxt", "out.prototxt", "run", "solver.prototxt"]
    else:  # what was written before is whole
        with h5py.File("o.h5") as file:
            assert len(file["data"]) == len(file["label"]) >= 4
            assert np.isfinite(file["data"][...]).all()


def test_snapshot_on_the_way_that_cannot_be_written_does_not_end_the_run(folder: Path) -> None:
    monitor = Warnings()
    run = solver(monitor=monitor)
    block("run")
    run.step(4)
    assert [text.rsplit(": ", 1)[1] for text in monitor.messages] == [
        "the run continues without a snapshot of iteration 2",
        "the run continues without a snapshot of iteration 4",
    ]
    os.unlink("run")
    run.solve()
    assert sorted(os.listdir("run")) == ["r_iter_6.caffemodel", "r_iter_6.solverstate"]


def test_fallback_takes_the_snapshots_that_cannot_be_written(folder: Path) -> None:
    whole = solver("snapshot_prefix=whole/r")
    whole.solve()
    monitor = Warnings()
    run = solver(monitor=monitor, fallback="elsewhere")
    block("run")
    run.step(3)
    assert "the snapshot is written to elsewhere/r" in monitor.messages[0]
    resumed = solver("snapshot_prefix=again/r", snapshot="elsewhere/r_iter_2.solverstate")
    resumed.solve()
    for ours, theirs in zip(
        read_weights("again/r_iter_6.caffemodel").values(), read_weights("whole/r_iter_6.caffemodel").values()
    ):
        for a, b in zip(ours, theirs):
            np.testing.assert_array_equal(a, b)


def test_last_snapshot_is_rescued_to_a_temporary_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    (folder / "temporary").mkdir()
    run = solver("snapshot=0")
    original = Snapshots._write
    monkeypatch.setattr(
        Snapshots,
        "_write",
        lambda self, prefix: (
            (_ for _ in ()).throw(RunError("cannot write it")) if prefix == run.prefix else original(self, prefix)
        ),
    )
    with pytest.raises(RunError, match="cannot write it") as found:
        run.solve()
    (rescued,) = (folder / "temporary").glob("sslnet-*/r_iter_6.solverstate")
    assert str(rescued).replace("solverstate", "caffemodel") in found.value.hint
    assert read_state(rescued).iteration == 6


def test_snapshot_replaces_a_link_and_not_what_it_points_to(folder: Path) -> None:
    Path("precious.txt").write_text("precious")
    Path("run").mkdir()
    names = ["r_iter_0.caffemodel", "r_iter_0.solverstate", "r.lock"]
    for name in names:
        os.symlink("../precious.txt", f"run/{name}")
    solver().snapshot()
    assert not any(os.path.islink(f"run/{name}") for name in names[:2])
    with pytest.raises(RunError, match=r"cannot make the lock run/r\.lock"):
        solver().solve()
    assert Path("precious.txt").read_text() == "precious"


def test_remains_of_killed_runs_go_with_the_next_run_of_the_prefix(folder: Path) -> None:
    Path("run").mkdir()
    remains = [".0123abcd-r_iter_3.caffemodel", ".0123abcd-r_iter_3.solverstate.h5"]
    others = [".0123abcd-q_iter_3.caffemodel", ".hidden", "0123abcd-r_iter_3.caffemodel"]
    for name in remains + others:
        Path("run", name).write_text("x")
    solver().solve()
    left = os.listdir("run")
    assert not set(remains) & set(left)
    assert set(others) <= set(left)
    assert "r.lock" not in left


def test_remains_that_are_still_being_written_are_left_alone(folder: Path) -> None:
    code = (
        "import time; from sslnet.files import atomic_path\n"
        "with atomic_path('a.bin') as path: path.write_bytes(b'half'); print(path, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        name = writer.stdout.readline().strip()
        remove_remains(".", "a.bin")
        assert os.path.exists(name)
        atomic_write("a.bin", b"whole")
        assert os.path.exists(name)
        writer.kill()
    assert os.path.exists(name)
    atomic_write("a.bin", b"again")
    assert not os.path.exists(name)
    assert Path("a.bin").read_bytes() == b"again"


def test_hdf5_file_is_written_whole_or_not_at_all(folder: Path) -> None:
    with atomic_hdf5("a.h5") as file:
        file["x"] = np.arange(5)
        assert os.listdir() == ["net.prototxt", "solver.prototxt"] or "a.h5" not in os.listdir()
    with h5py.File("a.h5") as file:
        assert file["x"][...].tolist() == [0, 1, 2, 3, 4]
    before = Path("a.h5").read_bytes()
    with pytest.raises(ZeroDivisionError), atomic_hdf5("a.h5") as file:
        file["y"] = 1
        raise ZeroDivisionError
    assert Path("a.h5").read_bytes() == before
    assert sorted(os.listdir()) == ["a.h5", "net.prototxt", "solver.prototxt"]


def test_new_file_takes_the_place_of_none(folder: Path) -> None:
    atomic_write("new.bin", b"1", new=True)
    with pytest.raises(RunError, match="a file of this name already exists"):
        atomic_write("new.bin", b"2", new=True)
    assert Path("new.bin").read_bytes() == b"1"
    os.symlink("nowhere", "link")
    with pytest.raises(RunError, match="already"):
        atomic_write("link", b"2", new=True, follow=False)
    assert not os.path.exists("nowhere")


def test_rows_of_extract_take_no_more_room_than_they_need(folder: Path) -> None:
    from sslnet.cli import main

    solver().snapshot()
    arguments = ["extract", "--model", "net.prototxt", "--weights", "run/r_iter_0.caffemodel", "--blobs", "x,ip"]
    assert main([*arguments, "--iterations", "50", "--output", "o.h5"]) == 0
    with h5py.File("o.h5") as file:
        values = sum(file[name].size for name in ("x", "ip")) * 4
        assert len(file["x"]) == 200
    assert values <= os.path.getsize("o.h5") <= values + (1 << 20)


def test_fifo_among_the_remains_stops_nobody(folder: Path) -> None:
    os.mkfifo(".deadbeef-a.bin")
    os.symlink("net.prototxt", ".deadbee1-a.bin")
    atomic_write("a.bin", b"data")
    assert Path("a.bin").read_bytes() == b"data"
    assert Path("net.prototxt").read_text() == NET


def test_lock_of_another_program_is_left_alone(folder: Path) -> None:
    Path("poetry.lock").write_text("precious")
    with pytest.raises(UsageError, match=r"poetry\.lock is not a lock of sslnet"):
        solver("snapshot_prefix=poetry").solve()
    assert Path("poetry.lock").read_text() == "precious"


def test_two_runs_do_not_share_the_names_in_a_fallback_folder(folder: Path) -> None:
    first, second = solver("snapshot_prefix=a/r", fallback="fall"), solver("snapshot_prefix=b/r", fallback="fall")

    class Second(Monitor):
        def on_iteration(self, iteration: int, loss: float) -> None:
            if iteration == 1:
                with pytest.raises(UsageError, match="fall/r is in use"):
                    second.solve()

    first.monitor = Second()
    first.solve()
    assert os.listdir("fall") == []


def test_last_snapshot_that_can_be_written_nowhere_names_the_first_cause(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    run = solver("snapshot=0", "max_iter=1")

    def fail(self: Snapshots, prefix: str) -> None:
        raise RunError(f"cannot write {prefix}")

    monkeypatch.setattr(Snapshots, "_write", fail)
    with pytest.raises(RunError, match="cannot write run/r") as found:
        run.solve()
    assert "nor can they be saved in the folder for temporary files" in found.value.hint


def test_name_with_a_nul_is_one_error(folder: Path) -> None:
    with pytest.raises(DefinitionError, match="must not hold a NUL character"):
        solver("snapshot_prefix=r\0x")
    with pytest.raises(RunError, match="is not the name of a file"):
        atomic_write("a\0b", b"")
