"""Runs for a long time and checks that memory, descriptors and threads do not grow."""

from __future__ import annotations

import json
import statistics
import threading
from pathlib import Path
from typing import Any

import numpy as np

from campaign.children import Child, descriptors, resident
from campaign.commands import judge
from campaign.job import Job
from campaign.seeds import DIGITS_DEPLOY

HELP = "long runs with snapshots and tests, and a long served Predictor: memory, descriptors and threads constant"
UNIT = "rounds"
LEAST = 10
LARGER, BYTES = 1.05, 4 << 20
"""Maximum growth of memory from the second quarter of the time to the last: a finding exceeds both."""
FEWEST = 12
"""Minimum number of samples for a result."""


def weights() -> dict[str, float]:
    return {"lmdb": 1.0, "image": 1.0, "hdf5": 1.0, "predictor": 1.0}


def run(job: Job) -> None:
    samples = job.folder / "samples.jsonl"
    samples.touch()
    child = Child(
        lambda: _serve(job, samples) if job.target == "predictor" else _train(job, samples), job.folder / "out.txt"
    )
    while not job.over() and not child.wait(0.5):
        job.count.runs = len(samples.read_text().splitlines())
    rows = [json.loads(line) for line in samples.read_text().splitlines(keepends=True) if line.endswith("\n")]
    if not child.wait(0):
        child.kill()
        child.end(5)
    else:
        judge(job, job.target, child.end(0), ())
    job.count.runs = len(rows)
    problem = grown(rows)
    if problem:
        job.find("other", f"{job.target}: {problem}", samples.read_text())


def grown(rows: list[tuple[int, int, int]]) -> str:
    """The quantity that has grown from the second quarter of the samples (bytes, descriptors, threads) to the last one;
    or nothing."""
    if len(rows) < FEWEST:
        return ""
    quarter = len(rows) // 4
    early, late = (
        [statistics.median(row[column] for row in part) for column in range(3)]
        for part in (rows[quarter : 2 * quarter], rows[-quarter:])
    )
    if late[0] > early[0] * LARGER and late[0] > early[0] + BYTES:
        return f"memory grew from {early[0] / 2**20:.1f} to {late[0] / 2**20:.1f} MiB"
    for what, before, after in zip(("descriptors", "threads"), early[1:], late[1:]):
        if after > before + 2:
            return f"{what} grew from {before:g} to {after:g}"
    return ""


def _sample(file: Any) -> None:
    file.write(json.dumps([resident(), descriptors(), threading.active_count()]) + "\n")
    file.flush()


def _train(job: Job, samples: Path) -> int:
    """Trains, tests and writes snapshots, in a child, until it is killed; keeps only the last snapshots."""
    from sslnet import prototxt
    from sslnet.solver.solver import Solver

    solver_file = job.seeds.small_solver(job.target, job.seeds.data, job.folder)
    snapshots = job.folder / "snapshots"
    snapshots.mkdir()
    sets = ["max_iter=100000000", "snapshot=40", "test_interval=60", f"snapshot_prefix={snapshots / 'r'}"]
    solver = Solver(prototxt.apply_overrides(prototxt.read_solver(solver_file), sets), lean=True)
    with samples.open("a") as file:
        while True:
            solver.step(40)
            for path in list(snapshots.iterdir()):
                if f"_iter_{solver.iter}." not in path.name and not path.name.endswith(".lock"):
                    path.unlink()
            _sample(file)


def _serve(job: Job, samples: Path) -> int:
    """Runs a Predictor on batches of all sizes, in a child, until it is killed."""
    import sslnet

    predict = sslnet.Predictor(str(DIGITS_DEPLOY), str(job.seeds / "digits.caffemodel"))
    rng = np.random.default_rng(job.seed)
    with samples.open("a") as file:
        while True:
            for size in rng.integers(1, 64, 50):
                predict(rng.random((int(size), 1, 8, 8), dtype=np.float32))
            _sample(file)
