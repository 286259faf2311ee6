"""The number of cores that this process can use: the cores it may run on, limited by the CPU quota of its container."""

from __future__ import annotations

import math
import os
from pathlib import Path

ROOT = Path("/")


def usable_cores() -> int:
    """Physical cores of the affinity mask, at most the CPU quota (rounded up); at least 1.

    With more threads than the quota the kernel stops all of them for the rest of every period.
    """
    quota = cpu_quota()
    return physical_cores() if quota is None else max(1, min(physical_cores(), math.ceil(quota)))


def physical_cores() -> int:
    """Physical cores this process may run on: the CPUs of its affinity mask, with siblings of a core counted once."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
    return len({siblings(cpu) for cpu in cpus}) or 1


def cpu_quota(root: Path = ROOT) -> float | None:
    """The CPU quota of this process, in CPUs: the smallest of all its control groups; None without a limit.

    root   the folder that contains proc and sys

    Ref: Linux kernel documentation, "Control Group v2", cpu.max; "CFS Bandwidth Control", cpu.cfs_quota_us (v1)
    """
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, place = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            quotas += _quotas(root / "sys/fs/cgroup", place) + _quotas(root / "sys/fs/cgroup/unified", place)
        elif "cpu" in controllers.split(","):
            quotas += _quotas(root / "sys/fs/cgroup/cpu", place) + _quotas(root / "sys/fs/cgroup" / controllers, place)
    return min(quotas, default=None)


def _quotas(mount: Path, place: str) -> list[float]:
    """The quotas of a group and of its parents. In a container the group's own folder may be the mount itself."""
    folder = mount / place.lstrip("/")
    folders = [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount)), mount]
    return [quota for quota in map(_quota, dict.fromkeys(folders)) if quota is not None]


def _quota(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu.cfs_quota_us").strip(),
        _read(folder / "cpu.cfs_period_us").strip(),
    ]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def siblings(cpu: int) -> str:
    """The CPUs that share a core with ``cpu``, as the kernel lists them; the CPU's own number if there is no list."""
    return _read(ROOT / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").strip() or str(cpu)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
