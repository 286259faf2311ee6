"""``mpirun -n 2 sslnet train``: one log, one snapshot, one error; and no trace of MPI without a launcher."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sslnet.cli import main
from sslnet.ranks import launcher
from sslnet.ranks.launcher import launched_rank, launched_size

MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
needs_mpi = pytest.mark.skipif(
    MPIRUN is None or importlib.util.find_spec("mpi4py") is None, reason="needs mpi4py and mpirun"
)
ROOT = Path(__file__).parents[2]
SOLVER = ROOT / "solvers" / "digits_ssl.prototxt"
NO_TESTS = ("--set", "test_interval=1000000", "--set", "test_initialization=false")


def start(folder: Path, *more: str, ranks: int = 2, command: str = "train") -> subprocess.Popen[str]:
    own = ["--solver", str(SOLVER), "--set", f"snapshot_prefix={folder}/s"] if command == "train" else []
    words = [str(MPIRUN), "-n", str(ranks), sys.executable, "-m", "sslnet", command, *own, *more]
    environment = {**os.environ, "SSLNET_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ranks_of(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """{rank: process} of the processes that the launcher has started."""
    import psutil

    found = {}
    for process in psutil.Process(launcher.pid).children(recursive=True):
        try:
            names = process.environ()
            rank = next((names[name] for _, name in launcher_variables() if name in names), None)
            if rank is not None and "train" in process.cmdline() and "sslnet" in process.cmdline():
                found[int(rank)] = process.pid
        except (psutil.Error, OSError):
            continue
    return found


def launcher_variables() -> list[tuple[str, str]]:
    return list(launcher.LAUNCHERS.values())


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@needs_mpi
def test_one_rank_logs_and_writes(tmp_path: Path) -> None:
    done = start(tmp_path, "--set", "max_iter=4", "--set", "display=2", "--set", "test_iter=3", "--certificate", "2")
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert err.count("Optimization Done") == 1
    assert "2 ranks, whole batch 128" in err
    assert out.count("test error") == 1
    assert "exchange of gradients" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.jsonl",
        "s_iter_4.caffemodel",
        "s_iter_4.solverstate",
    ]


@needs_mpi
@pytest.mark.parametrize(("number", "who"), [(signal.SIGTERM, 1), (signal.SIGINT, None)])
def test_a_signal_ends_in_one_snapshot(tmp_path: Path, number: int, who: int | None) -> None:
    """To one rank, and to the launcher."""
    run = start(tmp_path, "--set", "max_iter=1000000", "--set", "snapshot=2", "--set", "display=0")
    wait_for(tmp_path / "s_iter_2.solverstate", run)
    os.kill(run.pid if who is None else ranks_of(run)[who], number)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 130, err
    assert err.count("Optimization stopped early") == 1
    last = max(int(match[1]) for path in tmp_path.iterdir() if (match := re.search(r"_(\d+)\.solverstate$", path.name)))
    assert (tmp_path / f"s_iter_{last}.caffemodel").exists()


@needs_mpi
def test_a_killed_rank_ends_all_and_the_last_snapshot_continues(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    run = start(tmp_path / "a", "--set", "max_iter=1000000", "--set", "snapshot=3", *NO_TESTS)
    wait_for(tmp_path / "a" / "s_iter_3.solverstate", run)
    processes = ranks_of(run)
    os.kill(processes[1], signal.SIGKILL)
    began = time.monotonic()
    run.communicate(timeout=60)
    assert run.returncode != 0
    assert time.monotonic() - began < 10
    import psutil

    assert not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in processes.values()
    )
    more = ["--set", "max_iter=6", *NO_TESTS]
    for folder, first in (("a", ["--snapshot", str(tmp_path / "a" / "s_iter_3.solverstate")]), ("b", [])):
        (tmp_path / folder).mkdir(exist_ok=True)
        done = start(tmp_path / folder, *more, *first)
        _, err = done.communicate(timeout=300)
        assert done.returncode == 0, err
    ours, theirs = ((tmp_path / folder / "s_iter_6.caffemodel").read_bytes() for folder in "ab")
    assert ours == theirs


@needs_mpi
def test_an_error_of_all_is_told_once_and_one_of_a_rank_ends_all(tmp_path: Path) -> None:
    done = start(tmp_path, "--set", "base_lr=1e30", "--set", "max_iter=50", *NO_TESTS)
    _, err = done.communicate(timeout=120)
    assert done.returncode == 1, err
    assert err.count("the loss is") == 1 or err.count("is not finite") == 1, err
    missing = start(tmp_path, "--weights", "nothing.caffemodel")
    _, err = missing.communicate(timeout=120)
    assert missing.returncode == 2
    assert err.count("there is no file") == 1, err
    refused = start(tmp_path, command="info")
    _, err = refused.communicate(timeout=120)
    assert refused.returncode == 2
    assert err.count("but sslnet info runs in one") == 1, err


def test_without_a_launcher_nothing_of_mpi_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names in launcher.LAUNCHERS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    code = (
        "import sys; from sslnet.cli import main; code = main(sys.argv[1:]); "
        "assert not any(name.startswith('mpi4py') for name in sys.modules); sys.exit(code)"
    )
    words = ["train", "--solver", str(SOLVER), "--set", "max_iter=1", "--set", f"snapshot_prefix={tmp_path}/s"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (1, 0)),
        ({"PMI_SIZE": "8", "PMI_RANK": "3"}, (8, 3)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, (2, 1)),
        ({"PMIX_SIZE": "4", "PMIX_RANK": "0"}, (4, 0)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, (1, 0)),
        ({"PMI_SIZE": "x", "PMI_RANK": "0"}, (1, 0)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (1, 0)),  # the shell of a batch script
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "5", "PMI_FD": "7"}, (8, 5)),
    ],
)
def test_launchers_are_known_by_their_environment(
    variables: dict[str, str], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI_", "SLURM_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (launched_size(), launched_rank()) == expected


def test_a_launcher_without_mpi4py_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert main(["train", "--solver", str(SOLVER)]) == 2
    assert 'pip install "sslnet[mpi]"' in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "soon"])
def test_the_longest_wait_is_checked(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sslnet.errors import UsageError
    from sslnet.ranks.group import timeout

    monkeypatch.setenv("SSLNET_RANK_TIMEOUT", text)
    with pytest.raises(UsageError, match="number of seconds above 0"):
        timeout()
