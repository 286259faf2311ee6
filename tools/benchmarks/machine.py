"""The machine, the versions of packages, and the number of threads of all contestants."""

from __future__ import annotations

import importlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from sslnet.kernels.runtime.cores import usable_cores
from sslnet.kernels.runtime.threads import set_num_threads
from sslnet.kernels.simd.vector import vector_unit

PEERS = ("torch", "onnxruntime")


def import_peer(name: str) -> Any:
    """The module, or None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def use_threads(count: int, torch: Any = None) -> None:
    """Sets the number of threads of all contestants; torch flushes denormals, as sslnet does."""
    set_num_threads(count)
    if torch is not None:
        torch.set_num_threads(count)
        torch.set_flush_denormal(True)


def versions() -> dict[str, str | None]:
    """The versions of installed packages, whether they take part or not; nothing is imported."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("numpy", "numba", *PEERS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """The properties of the machine that the figures depend on."""
    return {
        "cpu": cpu_name(),
        "cpus": usable_cores(),
        "vector": vector_unit().name,
        "versions": versions(),
    }


def describe(found: dict[str, Any]) -> str:
    peers = (f"{name} {version}" for name, version in found["versions"].items() if version)
    without = [name for name in PEERS if not found["versions"][name]]
    absent = f"; {' and '.join(without)} not installed, ours is timed alone" if without else ""
    return f"{found['cpu']}, {found['cpus']} CPUs, {found['vector']}; {', '.join(peers)}{absent}"


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
