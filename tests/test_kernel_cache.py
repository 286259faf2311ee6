"""Where compiled kernels are kept: one folder for each state of the sources, which nobody else can write."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sslnet import kernel_cache

PATHS = """
import os
os.access = lambda *arguments: False
from sslnet.sources import lmdb_tree, transformer
from sslnet.kernels.optim import prox
for module in (transformer, prox, lmdb_tree):
    kernels = (value for value in vars(module).values() if hasattr(value, "_cache"))
    print(next(kernel._cache.cache_path for kernel in kernels if hasattr(kernel._cache, "cache_path")))
"""
"""A run on a machine where no folder seems writable: where a kernel of three modules is kept."""

SIGMOID = """
import numpy as np
from sslnet.layers.sigmoid import _forward
x, y = np.zeros(4, np.float32), np.empty(4, np.float32)
_forward(0, 4, 0, x, y)
print(y[0], sum(_forward.stats.cache_hits.values()))
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders, users and locks of POSIX")


# -- the choice of a place ------------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing can be written but a folder for temporary files, which is returned."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_writable", lambda folder: False)
    return tmp_path


def test_package_comes_first_then_the_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_writable", lambda folder: True)
    assert kernel_cache.default_base() == kernel_cache.PACKAGE / "__pycache__"
    monkeypatch.setattr(kernel_cache, "_writable", lambda folder: folder != kernel_cache.PACKAGE)
    if sys.platform != "darwin":
        assert kernel_cache.default_base() == tmp_path / "numba"


def test_folder_that_was_named_is_taken_where_it_can_be_made(nowhere: Path) -> None:
    named = nowhere / "deep" / "elsewhere"
    assert kernel_cache.open_folder(str(named)).parent == named
    (nowhere / "file").touch()
    assert kernel_cache.open_folder(str(nowhere / "file")).parent == nowhere / f"sslnet-kernels-{os.geteuid()}"


def test_temporary_files_are_the_last_resort_where_a_folder_cannot_be_made_after_all(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nowhere / "file").touch()
    monkeypatch.setattr(kernel_cache, "default_base", lambda: nowhere / "file")
    assert kernel_cache.open_folder("").parent == nowhere / f"sslnet-kernels-{os.geteuid()}"


def test_temporary_folder_is_the_same_in_every_run_and_of_this_user_alone(nowhere: Path) -> None:
    folder = kernel_cache.default_base()
    assert kernel_cache.default_base() == folder
    assert folder.parent == nowhere
    assert os.stat(folder).st_mode & 0o077 == 0


@pytest.mark.parametrize("trap", ["open to all", "link", "file"])
def test_temporary_folder_that_others_can_write_is_not_taken(trap: str, nowhere: Path) -> None:
    taken = nowhere / f"sslnet-kernels-{os.geteuid()}"
    if trap == "open to all":
        taken.mkdir()
        taken.chmod(0o777)
    elif trap == "link":
        (nowhere / "other").mkdir()
        taken.symlink_to(nowhere / "other")
    else:
        taken.touch()
    folder = kernel_cache.default_base()
    assert folder != taken
    assert os.stat(folder).st_mode & 0o077 == 0


def run(code: str, **environment: str) -> str:
    inherited = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_kernel_is_kept_in_the_temporary_folder(tmp_path: Path) -> None:
    folders = run(PATHS, PYTHONPATH=str(kernel_cache.PACKAGE.parent), TMPDIR=str(tmp_path)).splitlines()
    assert len(folders) == 3
    own = tmp_path / f"sslnet-kernels-{os.geteuid()}" / f"sslnet-kernels-{kernel_cache.source_digest()}"
    assert all(Path(folder).is_relative_to(own) for folder in folders)


# -- the state of the sources ---------------------------------------------------------------------------------------------


def test_kernels_are_compiled_again_when_what_they_are_made_of_has_changed(tmp_path: Path) -> None:
    package = tmp_path / "sslnet"
    shutil.copytree(kernel_cache.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert kernel_cache.source_digest(package) == kernel_cache.source_digest()

    def sigmoid_of_zero() -> tuple[float, int]:
        value, hits = run(SIGMOID, PYTHONPATH=str(tmp_path)).split()
        return float(value), int(hits)

    assert sigmoid_of_zero() == (0.5, 0)
    assert sigmoid_of_zero() == (0.5, 1)
    math = package / "kernels" / "simd" / "math.py"
    source = math.read_text()
    math.write_text(source.replace("r * r) + r + _ONE)", "r * r) + r + _TWO)"))  # exp(0) becomes 2
    assert sigmoid_of_zero() == (pytest.approx(1 / 3), 0)
    math.write_text(source)
    assert sigmoid_of_zero() == (0.5, 1)


def test_digest_is_of_the_files_that_compiled_code_can_contain(tmp_path: Path) -> None:
    kernel = "from sslnet.kernels.runtime.jit import kernel\n"
    files = {"kernels/a.py": "", "kernels/b/c.py": "x = 1\n", "layers/relu.py": kernel, "cli/train.py": "x = 1\n"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    before = kernel_cache.source_digest(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(content + "# more\n")
        assert (kernel_cache.source_digest(tmp_path) == before) == (name == "cli/train.py")
        (tmp_path / name).write_text(content)
    assert kernel_cache.source_digest(tmp_path) == before
    (tmp_path / "kernels" / "new.py").touch()
    assert kernel_cache.source_digest(tmp_path) != before


def test_whatever_is_compiled_is_part_of_the_digest_and_kept_in_its_folder() -> None:
    sources = {name for name, _ in kernel_cache.kernel_sources()}
    for path in kernel_cache.PACKAGE.rglob("*.py"):
        name, text = path.relative_to(kernel_cache.PACKAGE).as_posix(), path.read_text(encoding="utf-8")
        if re.search(r"^ *@(\w*kernel|c_function|tile|instructions|intrinsic|overload|njit)\b", text, re.MULTILINE):
            assert name in sources, f"{name} holds kernels, but they are not compiled again when it has changed"
        if name != "kernels/runtime/compiler.py":
            assert "cache=True" not in text, (
                f"{name}: the decorators of kernels/runtime/compiler.py keep what they compile"
            )


def test_functions_of_other_numbers_share_no_index() -> None:
    from sslnet.kernels.runtime.compiler import KernelLocator

    def name(number: int) -> str:
        def tile() -> int:
            return number

        return KernelLocator(tile, Path("kernels/simd/tile.py")).get_disambiguator()

    assert name(1) == name(1)
    assert name(1) != name(2)


# -- folders of other states ----------------------------------------------------------------------------------------------


def old_folders(base: Path, count: int) -> list[Path]:
    """Folders of former states of the sources, the one used longest ago first."""
    folders = [base / f"{kernel_cache.PREFIX}{number:016x}" for number in range(count)]
    for number, folder in enumerate(folders):
        (folder / "kernels").mkdir(parents=True)
        (folder / "kernels" / "a.nbc").touch()
        os.utime(folder, (1000 + number, 1000 + number))
    return folders


def test_folders_that_nobody_holds_are_removed_but_for_the_last(tmp_path: Path) -> None:
    folders = old_folders(tmp_path, kernel_cache.KEPT + 3)
    kernel_cache._hold(folders[1])
    (tmp_path / "sslnet-kernels-notes").mkdir()
    own = kernel_cache.open_folder(str(tmp_path))
    left = {folder for folder in folders if folder.exists()}
    assert left == {folders[1], *folders[3:]}
    assert (folders[1] / "kernels" / "a.nbc").exists()
    assert (tmp_path / "sslnet-kernels-notes").exists()
    assert own.is_dir()


def test_folder_that_is_used_is_among_the_last(tmp_path: Path) -> None:
    own = kernel_cache.open_folder(str(tmp_path))
    os.utime(own, (1, 1))
    assert kernel_cache.open_folder(str(tmp_path)) == own
    assert own.stat().st_mtime > 1000
