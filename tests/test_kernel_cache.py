"""Where compiled kernels are kept when neither the package nor the home can be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sslnet import kernel_cache

CODE = """
import os
os.access = lambda *arguments: False
from sslnet.kernels.optim import prox
from sslnet.sources import lmdb_tree, transformer
for module in (transformer, prox, lmdb_tree):
    kernels = (value for value in vars(module).values() if hasattr(value, "_cache"))
    print(next(kernel._cache.cache_path for kernel in kernels if hasattr(kernel._cache, "cache_path")))
"""
"""A run on a machine where no folder seems writable: where a kernel of three modules is kept."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders and users of POSIX")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing can be written but a folder for temporary files, which is returned."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_writable", lambda folder: False)
    return tmp_path


def test_own_choices_of_numba_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    for possible in ([True], [False, True]):
        answers = iter(possible)
        monkeypatch.setattr(kernel_cache, "_writable", lambda folder, answers=answers: next(answers))
        kernel_cache.ensure_cache_folder()
        assert "NUMBA_CACHE_DIR" not in os.environ


def test_folder_that_was_named_stays_named(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    kernel_cache.ensure_cache_folder()
    assert os.environ["NUMBA_CACHE_DIR"] == "elsewhere"


def test_temporary_folder_is_the_same_in_every_run_and_of_this_user_alone(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = set()
    for _ in range(2):
        kernel_cache.ensure_cache_folder()
        folders.add(os.environ["NUMBA_CACHE_DIR"])
        monkeypatch.delenv("NUMBA_CACHE_DIR")
    (folder,) = folders
    assert Path(folder).parent == nowhere
    assert os.stat(folder).st_mode & 0o077 == 0


@pytest.mark.parametrize("trap", ["open to all", "link", "file"])
def test_temporary_folder_that_others_can_write_is_not_taken(
    trap: str, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = nowhere / f"sslnet-kernels-{os.geteuid()}"
    if trap == "open to all":
        taken.mkdir()
        taken.chmod(0o777)
    elif trap == "link":
        (nowhere / "other").mkdir()
        taken.symlink_to(nowhere / "other")
    else:
        taken.touch()
    kernel_cache.ensure_cache_folder()
    folder = os.environ["NUMBA_CACHE_DIR"]
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert folder != str(taken)
    assert os.stat(folder).st_mode & 0o077 == 0


def test_every_kernel_is_kept_in_the_temporary_folder(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    folders = done.stdout.splitlines()
    assert len(folders) == 3
    assert all(Path(folder).is_relative_to(tmp_path / f"sslnet-kernels-{os.geteuid()}") for folder in folders)
