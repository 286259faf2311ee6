"""The tests' own set-up: how much memory is shared out, and whose programs the tools run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import memory_left

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("0::/\n", {"memory.max": "5000\n", "memory.current": "2000\n"}, 3000),
        ("0::/\n", {"memory.max": "5000", "memory.current": "4900", "memory.stat": "anon 1\ninactive_file 700\n"}, 800),
        ("0::/a/b\n", {"a/memory.max": "900", "a/memory.current": "0", "a/b/memory.max": "max"}, 900),
        ("0::/not/seen/inside\n", {"memory.max": "5", "memory.current": "7"}, 0),
        (
            "3:cpu:/y\n5:memory:/x\n",
            {
                "memory/x/memory.limit_in_bytes": "4000",
                "memory/x/memory.usage_in_bytes": "3000",
                "memory/x/memory.stat": "inactive_file 1\ntotal_inactive_file 20\n",
            },
            1020,
        ),
        ("3:cpu:/\n", {"memory/memory.limit_in_bytes": "4", "memory/memory.usage_in_bytes": "3"}, None),
        ("nonsense", {}, None),
        (None, {}, None),
    ],
)
def test_memory_of_a_container_is_what_it_may_still_take(
    groups: str | None, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        place = tmp_path / "sys/fs/cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    found = memory_left(tmp_path)
    assert found > 10_000 if expected is None else found == expected


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("tool", ["test", "check", "fmt"])
def test_tools_run_in_the_active_environment_else_in_the_sources_own(tool: str, active: bool, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(TOOLS / tool, tmp_path / "tools" / tool)
    for place in (".venv", "fresh"):
        (tmp_path / place / "bin").mkdir(parents=True)
        for name in ("pytest", "ruff", "mypy", "python3"):
            (tmp_path / place / "bin" / name).write_text(f"#!/bin/sh\necho {place}\n")
            (tmp_path / place / "bin" / name).chmod(0o755)
    variables = {"PATH": f"{tmp_path}/fresh/bin:{os.environ['PATH']}"} | ({"VIRTUAL_ENV": "fresh"} if active else {})
    done = subprocess.run(
        ["bash", tmp_path / "tools" / tool], env=variables, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"fresh" if active else ".venv"}
