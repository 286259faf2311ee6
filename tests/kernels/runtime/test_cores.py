"""Cores that a process may use: what the control groups of a container leave it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslnet.kernels.runtime import cores
from sslnet.kernels.runtime.cores import cpu_quota, physical_cores, usable_cores


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root folder with these control groups."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "200000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 2.0),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "200000 100000", "sys/fs/cgroup/a/b/cpu.max": "50000 100000"}, 0.5),
        ("0::/not/seen/inside\n", {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        (
            "5:cpu,cpuacct:/docker/x\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        (
            "1:cpu:/y\n0::/\n",
            {"sys/fs/cgroup/cpu/y/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/y/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("2:memory:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000"}, None),
        ("nonsense", {}, None),
    ],
)
def test_quota_is_the_least_of_all_groups(
    tmp_path: Path, groups: str, files: dict[str, str], expected: float | None
) -> None:
    assert cpu_quota(system(tmp_path, groups, files)) == expected


def test_no_control_groups_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize("quota, physical, expected", [(None, 4, 4), (1.5, 4, 2), (0.5, 4, 1), (9.0, 4, 4)])
def test_threads_beyond_the_quota_are_not_used(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, physical: int, expected: int
) -> None:
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.setattr(cores, "physical_cores", lambda: physical)
    assert usable_cores() == expected


def test_this_machine_has_cores() -> None:
    assert 1 <= usable_cores() <= physical_cores()
