"""Installing: what an earlier build left behind is not installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
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


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_newest_section_of_the_changelog_is_the_version() -> None:
    """Sections have dates, newest first; the first may be unreleased."""
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sections[0].split()[0] == PROJECT["version"]
    dates = [re.fullmatch(r"\d+\.\d+\.\d+ \((\d{4}-\d\d-\d\d)\)", section) for section in sections]
    assert all(dates[1:]) and (dates[0] or sections[0].endswith("(unreleased)"))
    known = [date[1] for date in dates if date]
    assert known == sorted(known, reverse=True)


def test_hosted_ci_runs_every_python_that_the_package_names() -> None:
    named = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"matrix: { python: \[(.+)\] }", workflow)
    assert re.findall(r"3\.\d+", matrix) == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert "run: .ci/run" in workflow


def test_pre_commit_runs_what_is_checked() -> None:
    assert "entry: tools/check" in (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
