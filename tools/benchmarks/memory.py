"""Peak memory of training: each contestant in a process of its own, at least three iterations of each net.

What is compared is the largest resident size over what the process had after its imports; the whole of it stands beside.
Linux only: it is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import import_peer
from benchmarks.tables import Column, Row
from benchmarks.turns import OURS
from benchmarks.workloads import WORKLOADS

HELP = "Peak memory of training."
SECONDS = 0.0
NETS = ("lenet-b64", "cifar10_full-b100", "resnet20-b128", "alexnet-b32")
CONTESTANTS = (OURS, "torch", "channels_last")
WORKER = Path(__file__).with_name("memory_worker.py")


def _mebibytes(name: str, what: str = "median") -> Any:
    return lambda row: f"{row['times'][name][what]:.0f}" if name in row["times"] else ""


COLUMNS = [
    Column("net", 20, lambda row: row["what"], left=True),
    Column("threads", 7, lambda row: str(row["threads"])),
    *(Column(f"{name} MiB", 17, _mebibytes(name)) for name in CONTESTANTS),
    Column("ratio", 6, lambda row: f"{row['ratio']:.2f}" if "ratio" in row else ""),
    *(Column(f"{name} in all", 20, _mebibytes(name, "total")) for name in CONTESTANTS),
]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nets", nargs="+", choices=WORKLOADS, default=list(NETS), metavar="NET", help=", ".join(WORKLOADS)
    )


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Rows as in other sections, in mebibytes instead of milliseconds; one measurement with the most threads."""
    threads = max(options.threads)
    alone = options.alone or import_peer("torch") is None
    for name in options.nets:
        times = {}
        for contestant in CONTESTANTS[:1] if alone else CONTESTANTS:
            if contestant == OURS:
                run_worker(contestant, name, threads)  # compiles what is not in the cache, which takes memory once
            found = run_worker(contestant, name, threads)
            over = found["over"] / 2**20
            times[contestant] = {
                "median": over,
                "low": over,
                "high": over,
                "best": over,
                "total": found["total"] / 2**20,
            }
        row: Row = {"what": name, "part": "peak", "threads": threads, "times": times, "unit": "MiB"}
        if not alone:
            against = min(CONTESTANTS[1:], key=lambda other: times[other]["median"])
            value = times[OURS]["median"] / times[against]["median"]
            row |= {"against": against} | dict.fromkeys(("ratio", "ratio_low", "ratio_high", "ratio_best"), value)
        yield row


def run_worker(contestant: str, workload: str, threads: int) -> dict[str, int]:
    """{"over": bytes over those after the imports, "total": bytes in all}"""
    command = [sys.executable, str(WORKER), contestant, workload, str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found
