"""Runs predictors and solvers in many threads and in forked processes, and checks for leaks."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from campaign.children import Child, descriptors, renew_streams, resident
from campaign.children import run as run_child
from campaign.commands import judge
from campaign.job import Job
from campaign.seeds import DIGITS_DEPLOY, DIGITS_NET, DIGITS_SOLVER, Seeds

HELP = "one Predictor and several Solvers under 16 threads, forks in between, nothing left behind"
UNIT = "runs"
LEAST = 10
THREADS = 16
SECONDS = 200.0
LEAK_BYTES = 16 << 20
"""Maximum growth of memory from the first quarter of a thousand objects to the last."""


def weights() -> dict[str, float]:
    return dict.fromkeys(ROUNDS, 1.0)


def run(job: Job) -> None:
    number = 0
    while not job.over():
        number += 1
        rng = job.rng(number)
        ended = run_child(partial(_round, job, rng), job.folder / "out.txt", seconds=SECONDS)
        job.count.runs += 1
        if judge(job, job.target, ended, (0, 1)) and ended.code:
            job.find("other", ended.output.strip()[-300:], ended.output)


def _round(job: Job, rng: random.Random) -> int:
    """Runs one round in a child: returns 1 and prints a line after a failure."""
    from sslnet.kernels.runtime.threads import set_num_threads

    set_num_threads(rng.choice([1, 2, 4]))
    problem = ROUNDS[job.target](job.seeds, rng)
    print(problem or "right")
    return int(bool(problem))


def _together(works: list[Callable[[], object]]) -> list[str]:
    """Runs functions in one thread each; returns their exceptions."""
    errors: list[str] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def predictor(seeds: Seeds, rng: random.Random) -> str:
    """Checks that concurrent threads get the values that a single one gets; and so does a forked process."""
    import sslnet

    predict = sslnet.Predictor(str(DIGITS_DEPLOY), str(seeds / "digits.caffemodel"))
    images = np.random.default_rng(rng.randrange(2**32)).random((7, 1, 8, 8), dtype=np.float32)
    wanted = {size: predict(images[:size])["prob"].copy() for size in (1, 3, 7)}
    wrong: list[str] = []

    def work(sizes: list[int]) -> None:
        for size in sizes:
            if not np.array_equal(predict(images[:size])["prob"], wanted[size]):
                wrong.append(f"other values for {size} images")

    errors = _together([partial(work, rng.choices([1, 3, 7], k=60)) for _ in range(THREADS)])
    return "; ".join((errors + wrong)[:3])


def solvers(seeds: Seeds, rng: random.Random) -> str:
    """Checks that two solvers in threads of their own train as one alone does."""
    steps = rng.randint(4, 10)
    alone = _solver(seeds, rng.choice(["lmdb", "image", "hdf5"]))
    alone.step(steps)
    wanted = _learned(alone)
    kind = alone.definition.path
    both = [_again(kind), _again(kind)]
    errors = _together([partial(solver.step, steps) for solver in both])
    wrong = [f"solver {number} has other weights" for number, solver in enumerate(both) if _learned(solver) != wanted]
    return "; ".join((errors + wrong)[:3])


def forks(seeds: Seeds, rng: random.Random) -> str:
    """Checks that processes forked while another thread trains or predicts can do the same."""
    import sslnet

    predict = sslnet.Predictor(str(DIGITS_DEPLOY), str(seeds / "digits.caffemodel"))
    images = np.ones((3, 1, 8, 8), np.float32)
    wanted = predict(images)["prob"].copy()
    solver = _solver(seeds, "lmdb")
    solver.step(2)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            solver.step(1)
            predict(images)

    def work() -> int:
        renew_streams()
        fresh = _again(solver.definition.path)
        fresh.step(2)
        return 0 if np.array_equal(predict(images)["prob"], wanted) else 3

    thread = threading.Thread(target=busy)
    thread.start()
    problems = []
    try:
        for number in range(4):
            stop.wait(rng.uniform(0.01, 0.2))
            ended = Child(work, seeds.folder / f"fork{os.getpid()}.txt").end(60)
            if ended.code != 0:
                problems.append(f"fork {number} ended with {ended.code}: {ended.output.strip()[-200:]}")
    finally:
        stop.set()
        thread.join()
    return "; ".join(problems[:2])


def leaks(seeds: Seeds, rng: random.Random) -> str:
    """Creates a thousand nets, predictors, solvers, and failing ones, and checks that memory, descriptors and threads
    do not grow."""
    import sslnet
    from sslnet.errors import SslnetError

    kind = rng.choice(["nets", "predictors", "solvers", "failures"])
    count = {"nets": 600, "predictors": 300, "solvers": 60, "failures": 300}[kind]
    damaged = seeds.folder / f"cut{os.getpid()}.caffemodel"
    damaged.write_bytes((seeds / "digits.caffemodel").read_bytes()[:-5000])
    images = np.ones((2, 1, 8, 8), np.float32)

    def one(number: int) -> None:
        if kind == "nets":
            net = sslnet.Net(str(DIGITS_NET), phase=sslnet.TRAIN, lean=bool(number & 1))
            if number % 4 == 0:
                net.forward()
                net.backward()
        elif kind == "predictors":
            sslnet.Predictor(str(DIGITS_DEPLOY), str(seeds / "digits.caffemodel"))(images)
        elif kind == "solvers":
            _solver(seeds, "lmdb").step(1)
        else:
            try:
                sslnet.Net(str(DIGITS_NET), str(damaged), sslnet.TEST)
            except SslnetError:
                return
            raise AssertionError("damaged weights were taken")

    samples: list[tuple[int, int, int]] = []
    for number in range(count):
        one(number)
        if number in (count // 4, count - 1):
            gc.collect()
            samples.append((resident(), descriptors(), threading.active_count()))
    damaged.unlink()
    (memory, files, alive), (memory2, files2, alive2) = samples
    if memory2 > memory + LEAK_BYTES or files2 > files + 3 or alive2 > alive + 3:
        return f"{kind}: {(memory2 - memory) >> 20} MiB, {files2 - files} descriptors, {alive2 - alive} threads more"
    return ""


ROUNDS: dict[str, Callable[[Seeds, random.Random], str]] = {
    "predictor": predictor, "solvers": solvers, "forks": forks, "leaks": leaks,
}  # fmt: skip
"""Target -> its function, run in a child; the result describes a failure."""


def _solver(seeds: Seeds, kind: str) -> Any:
    return _again(str(seeds.small_solver(kind, seeds.data, seeds.folder / f"solvers{os.getpid()}")))


def _again(path: Any) -> Any:
    """A new solver from this file."""
    from sslnet import prototxt
    from sslnet.solver.solver import Solver

    sets = ["snapshot=0", "test_interval=100000", "test_initialization=false", "snapshot_after_train=false"]
    return Solver(prototxt.apply_overrides(prototxt.read_solver(path or DIGITS_SOLVER), sets), lean=True)


def _learned(solver: Any) -> list[bytes]:
    return [param.blob.data.tobytes() for param in solver.net.learnable]
