"""Installing: what an earlier build left behind is not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_modules_of_an_earlier_build_are_not_built_again(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\n[tool.setuptools]\npackages = ["x"]\n'
    )
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "__init__.py").touch()
    gone = tmp_path / "build" / "lib" / "x" / "gone.py"
    gone.parent.mkdir(parents=True)
    gone.touch()
    done = subprocess.run([sys.executable, "setup.py", "build"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (gone.parent / "__init__.py").exists()
    assert not gone.exists()
