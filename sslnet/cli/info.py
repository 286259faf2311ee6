"""``sslnet info``: the machine and the libraries as sslnet sees them, what Caffe's device_query was for."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

HELP = "Tells what sslnet computes with: CPU, vector instructions, threads, BLAS, versions, cache of kernels."
EXAMPLE = "sslnet info --json"
PACKAGES = ("sslnet", "numpy", "numba", "llvmlite", "scipy", "protobuf", "threadpoolctl", "lmdb", "h5py", "pillow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    found = facts()
    if args.json:
        from sslnet.report import dump_json

        print(dump_json(found))
        return 0
    lines = words(found)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    return 0


def facts() -> dict[str, Any]:
    """Everything, for programs."""
    import sslnet.net.net  # noqa: F401 - with it the libraries that compute are loaded
    from sslnet.kernels.runtime.cores import physical_cores
    from sslnet.kernels.runtime.threads import VARIABLE, num_threads

    return {
        "cpu": {
            "name": cpu_name(),
            "architecture": platform.machine(),
            "logical": os.cpu_count(),
            "usable": usable_cpus(),
            "physical": physical_cores(),
        },
        "memory": memory(),
        "kernels": kernels(),
        "threads": {"count": num_threads(), "variable": os.environ.get(VARIABLE)},
        "blas": blas(),
        "system": platform.platform(),
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "versions": versions(),
        "cache": cache(),
    }


def words(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people: (name, value)."""
    from sslnet.kernels.runtime.threads import VARIABLE
    from sslnet.report.units import DASH, size

    cpu, unit, threads, store = found["cpu"], found["kernels"], found["threads"], found["cache"]
    origin = f"{VARIABLE}={threads['variable']}" if threads["variable"] else "one a physical core"
    lines = [
        ("CPU", f"{cpu['name']}, {cpu['architecture']}"),
        ("cores", f"{cpu['physical']} physical, {cpu['usable']} of {cpu['logical']} logical usable"),
        (
            "vectors",
            f"{unit['vectors']}: {unit['lanes']} floats, {unit['registers']} registers; compiled for {unit['target']}",
        ),
        ("threads", f"{threads['count']} ({origin})"),
        ("memory", f"{size(found['memory']['total'])}, {size(found['memory']['available'])} free"),
    ]
    for library in found["blas"]:
        name = " ".join(word for word in (library["name"], library["version"], library["architecture"]) if word)
        lines.append(("BLAS", f"{name}, {library['threads']} threads; 1 where sslnet's own threads call it"))
    python = found["python"]
    lines += [("system", found["system"]), ("Python", f"{python['version']} ({python['implementation']})")]
    lines += [(name, version or DASH) for name, version in found["versions"].items()]
    lines.append(("kernel cache", f"{store['folder']}, {store['kernels']} kernels, {size(store['bytes'])}"))
    return lines


def cpu_name() -> str:
    """The name that the maker gave it, where the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model"):
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def usable_cpus() -> int | None:
    """Logical CPUs that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count()


def memory() -> dict[str, int | None]:
    """Bytes in the machine, and free without swapping; None where the system does not tell."""
    known: dict[str, int] = {}
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if value.split()[1:] == ["kB"]:
                    known[name] = 1024 * int(value.split()[0])
    except OSError:
        pass
    return {"total": known.get("MemTotal"), "available": known.get("MemAvailable")}


def kernels() -> dict[str, Any]:
    """What Numba compiles the kernels for."""
    from numba.core.registry import cpu_target

    from sslnet.kernels.simd.vector import vector_unit

    unit = vector_unit()
    target = cpu_target.target_context.codegen().magic_tuple()[1]
    return {"vectors": unit.name, "lanes": unit.lanes, "registers": unit.registers, "target": target}


def blas() -> list[dict[str, Any]]:
    """The BLAS libraries that are loaded."""
    from threadpoolctl import threadpool_info

    return [
        {
            "name": pool["internal_api"],
            "version": pool["version"],
            "architecture": pool.get("architecture"),
            "threads": pool["num_threads"],
            "file": pool["filepath"],
        }
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]


def versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    import sslnet

    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = sslnet.__version__ if name == "sslnet" else version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def cache() -> dict[str, Any]:
    """Where compiled kernels are kept: the folder, how many kernels (of one signature each) there are, their bytes."""
    from sslnet.kernels.runtime.compiler import kernel_folder

    folder = kernel_folder()
    sizes = [file.stat().st_size for file in folder.rglob("*.nbc")]
    return {"folder": str(folder), "kernels": len(sizes), "bytes": sum(sizes)}
