"""What holds for every run of the tests: how many processes share them out, which of them run, and what Hypothesis draws.

Processes   ``-n auto``, the default in pyproject.toml: one a core, see ``pytest_xdist_auto_num_workers``; ``-n 0``: none
            but pytest's own. Each has its share of the cores for the threads of the kernels, unless SSLNET_NUM_THREADS
            says otherwise; tests of what threads do set their number themselves.
slow        Marks tests of minutes and of gigabytes. They run with SSLNET_TEST_SLOW=1, or where ``-m`` names them.
data        Marks tests of files that are not part of the sources. They run where SSLNET_TEST_DATA names their folder.
Hypothesis  It draws the same cases in every run, so that a change alone decides whether the tests pass.
            SSLNET_TEST_RANDOM=1 draws new ones each time: what such a run finds becomes a bug mended and a test of its own.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from sslnet.kernels.runtime.cores import usable_cores

settings.register_profile("same", derandomize=True, database=None, print_blob=True)
settings.register_profile("random", print_blob=True)
settings.load_profile("random" if os.environ.get("SSLNET_TEST_RANDOM") else "same")

WORKER_MEMORY = 2 << 30
"""Bytes that a process of the tests may come to need."""


def memory_left(root: Path = Path("/")) -> int:
    """Bytes that may still be used: of the machine, and of the control groups that this process lies in (v2 and v1).

    root  where /proc and /sys are
    """
    left = [psutil.virtual_memory().available]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        folder = mount / place.lstrip("/")
        for group in {folder, mount, *(parent for parent in folder.parents if parent.is_relative_to(mount))}:
            limit, used, stat = (_text(group / name) for name in (*names, "memory.stat"))
            if limit.strip().isdecimal() and used.strip().isdecimal():  # not "max", and there are such files
                files = re.findall(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE)
                left.append(max(0, int(limit) - int(used) + int(max(files, default="0", key=int))))  # cache gives way
    return min(left)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Processes of ``-n auto``: one a core while memory lasts; one file or single tests run in pytest's own process."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # xdist obeys it
    workers = min(usable_cores(), memory_left() // WORKER_MEMORY)
    paths = {Path(config.invocation_params.dir, argument.partition("::")[0]) for argument in config.args}
    one_file = len(paths) == 1 and all(path.is_file() for path in paths)
    return 0 if one_file or workers < 2 else workers


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell lets commands in the background ignore Ctrl-C, and their children too: tests that send it would wait.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:  # this is one of them; nothing has asked for the number of threads yet
        os.environ.setdefault("SSLNET_NUM_THREADS", str(max(1, usable_cores() // workers)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not os.environ.get("SSLNET_TEST_SLOW") and "slow" not in re.findall(r"\w+", config.option.markexpr):
        reasons["slow"] = "slow: SSLNET_TEST_SLOW=1 or -m slow runs it"
    if not os.environ.get("SSLNET_TEST_DATA"):
        reasons["data"] = "SSLNET_TEST_DATA names no folder of test data"
    for item in items:
        for name, reason in reasons.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))
