"""Runs damaged inputs, thousands per minute, one after the other in a worker; after a crash the last input is
recorded."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import resource
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from campaign import outcome
from campaign.children import Child, cpu_seconds, descriptors, few_arenas, limit_address_space, resident
from campaign.job import Job, empty, temporary_files
from campaign.nets import Nets, Shapes, Solvers
from campaign.targets import (
    Caffemodel,
    Cifar,
    Datum,
    Hdf5Data,
    Hdf5State,
    Hdf5Weights,
    Idx,
    Image,
    ImageList,
    Lmdb,
    Mean,
    Metrics,
    Onnx,
    Prototxt,
    State,
    Target,
)  # fmt: skip

HELP = "damaged inputs of every kind end in an error, soon, in little memory"
UNIT = "inputs"
LEAST = 5
CPU_SECONDS, WALL_SECONDS = 30.0, 150.0
"""Maximum seconds of one input: CPU time and wall time."""
MEMORY = 2 << 30
"""Maximum bytes of memory of one input."""
ADDRESSES = MEMORY + (1 << 30)
"""Maximum bytes of address space that a worker may map in addition, so that the machine keeps running."""
FILE_SIZE = 1 << 30
INPUTS_A_WORKER = 2000
LEAK = 20
"""Maximum number of additional descriptors or threads of a worker at its end, compared to after its first inputs."""
POLL = 0.05

TARGETS: dict[str, tuple[type[Target], float]] = {
    "nets": (Nets, 4), "shapes": (Shapes, 4), "solvers": (Solvers, 3), "prototxt": (Prototxt, 1),
    "caffemodel": (Caffemodel, 2), "hdf5-weights": (Hdf5Weights, 2), "state": (State, 2), "hdf5-state": (Hdf5State, 2),
    "hdf5-data": (Hdf5Data, 2), "lmdb": (Lmdb, 2), "datum": (Datum, 3), "image": (Image, 3), "image-list": (ImageList, 1),
    "mean": (Mean, 1), "onnx": (Onnx, 2), "metrics": (Metrics, 1), "idx": (Idx, 0.5), "cifar": (Cifar, 0.5),
}  # fmt: skip
"""Target -> the class that runs it, and its fraction of the time."""


def weights() -> dict[str, float]:
    return {name: weight for name, (_, weight) in TARGETS.items()}


def run(job: Job) -> None:
    target = TARGETS[job.target][0](job.seeds)
    if isinstance(target, Onnx) and job.seeds.notes:
        job.count.skipped = "; ".join(job.seeds.notes)
        return
    Supervisor(job, target).run()


class Board:
    """Memory shared by a worker and its supervisor: the current input, its start time, and the number of completed
    inputs."""

    FORMAT = "qqdd"

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def write(self, number: int, done: int, wall: float, cpu: float) -> None:
        struct.pack_into(self.FORMAT, self._memory, 0, number, done, wall, cpu)

    def read(self) -> tuple[int, int, float, float]:
        number, done, wall, cpu = struct.unpack_from(self.FORMAT, self._memory, 0)
        return number, done, wall, cpu


@dataclass
class Supervisor:
    """Forks workers and watches them, until the job's time is up."""

    job: Job
    target: Target
    cpu_seconds: float = CPU_SECONDS
    wall_seconds: float = WALL_SECONDS
    inputs_a_worker: int = INPUTS_A_WORKER
    suspect: int = -1
    """An input that took too long; it is run once more, because the first run of a kernel includes its compilation."""
    _rest: bytes = b""

    def run(self) -> None:
        few_arenas()
        self._warm()
        number = 0
        while not self.job.over():
            number = self._watch(number)

    def _warm(self) -> None:
        """Runs some inputs in this process, so that all workers have the loaded modules and compiled kernels."""
        for number in range(4):
            self._enter()
            with contextlib.suppress(outcome.Bad):
                one(self.job, self.target, self.path, f"warm{number}")

    @property
    def scratch(self) -> Path:
        return self.job.folder / "scratch"

    @property
    def path(self) -> Path:
        """Path of the input."""
        return self.scratch / f"input{self.target.SUFFIX}"

    @property
    def kept(self) -> Path:
        """A copy of the input, because its run may move or overwrite the other file."""
        return self.job.folder / f"input{self.target.SUFFIX}"

    def _enter(self) -> None:
        """Changes to the work folder, because definitions may name files to be written."""
        empty(self.scratch)
        os.chdir(self.scratch)

    def _watch(self, first: int) -> int:
        """Supervises one worker from its first input to its end; returns the number of the next input."""
        board, pipe = Board(), os.pipe()
        os.set_blocking(pipe[0], False)
        board.write(first, 0, time.monotonic(), 0.0)
        child = Child(lambda: self._work(board, pipe[1], first), self.job.folder / "worker.txt")
        os.close(pipe[1])
        before, reason, stopped = self.job.count.runs, "", False
        with open(pipe[0], "rb", 0) as findings:
            while not child.wait(POLL):
                self._take(findings.read())
                number, done, wall, cpu = board.read()
                self.job.count.runs = before + done
                reason = self._too_long(child, wall, cpu)
                if reason:
                    child.send(signal.SIGUSR1)  # it writes to its working folder
                    child.wait(0.5)
                    break
                if stopped := self.job.over():
                    break
            ended = child.end(0)
            self._take(findings.read())
        number, done, _, _ = board.read()
        self.job.count.runs = before + done
        if ended.code == 0 or stopped:
            return number + 1
        if reason and self.suspect != number:
            self.suspect = number
            return number
        self.job.count.runs += 1
        self._judge(number, reason, ended.code, ended.output)
        return number + 1

    def _too_long(self, child: Child, wall: float, cpu: float) -> str:
        """The resource of which the input uses too much; empty if none."""
        if time.monotonic() - wall > self.wall_seconds:
            return f"more than {self.wall_seconds:g} s"
        used = cpu_seconds(child.pid) - cpu
        return f"more than {self.cpu_seconds:g} s of the processor" if used > self.cpu_seconds else ""

    def _judge(self, number: int, reason: str, code: int | None, output: str) -> None:
        """Records how a worker ended that did not end by itself."""
        where = outcome.died(output)
        if reason:
            kind, what = "hangs", f"{reason}: {where}"
        elif outcome.OUT_OF_MEMORY.search(output):
            if self.target.SIZED:
                return
            kind, what = "memory", f"ended for want of memory: {where}"
        elif code is not None and code < 0:
            kind, what = "signals", f"{signal.Signals(-code).name}: {where}"
        else:
            kind, what = "tracebacks", f"the worker ended with {code}: {where}"
        self._find(number, kind, what, output)

    def _take(self, raw: bytes | None) -> None:
        """Reads the findings of a worker: number, kind, line and details, separated by NULs."""
        self._rest += raw or b""
        *whole, self._rest = self._rest.split(b"\0\0")
        for finding in whole:
            number, kind, what, details = finding.decode(errors="replace").split("\0", 3)
            self._find(int(number), kind, what, details, Path(f"{self.kept}.{number}"))
            Path(f"{self.kept}.{number}").unlink(missing_ok=True)

    def _find(self, number: int, kind: str, what: str, details: str, source: Path | None = None) -> None:
        line = f"{what} (input {number})"
        self.job.find(kind, line, details, source or self.kept, number)

    # -- in the worker -----------------------------------------------------------------------------------------------

    def _work(self, board: Board, pipe: int, first: int) -> int:
        import faulthandler

        faulthandler.register(signal.SIGUSR1, all_threads=True)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
        limit_address_space(ADDRESSES)
        gc.collect()
        gc.freeze()  # freezes existing objects: collections only examine new ones
        early = (0, 0)
        for done in range(self.inputs_a_worker):
            number = first + done
            board.write(number, done, time.monotonic(), cpu_seconds(os.getpid()))
            self._enter()
            try:
                one(self.job, self.target, self.path, number, self.kept)
            except outcome.Bad as bad:
                self.kept.rename(f"{self.kept}.{number}")
                fields = (number, bad.kind, bad.what, bad.details[-20000:])
                text = "\0".join(str(field).replace("\0", "\\0") for field in fields)
                os.write(pipe, text.encode("utf-8", "backslashreplace") + b"\0\0")
            gc.collect()
            if done == 20:
                early = leaks()
        board.write(first + self.inputs_a_worker - 1, self.inputs_a_worker, time.monotonic(), 0.0)
        late = leaks()
        for name, before, after in zip(("descriptors", "threads"), early, late):
            if after > before + LEAK:
                text = f"{first}\0other\0{after} {name} after {self.inputs_a_worker} inputs, {before} after 20\0"
                os.write(pipe, text.encode() + b"\0\0")
        return 0


def leaks() -> tuple[int, int]:
    """Numbers of descriptors and threads of this process."""
    return descriptors(), len(os.listdir("/proc/self/task"))


def one(job: Job, target: Target, path: Path, number: object, kept: Path | None = None) -> None:
    """Creates the input with this number and runs it. raises outcome.Bad"""
    rng = job.rng(number)
    data = target.make(rng)
    path.write_bytes(data)
    if kept is not None:
        kept.write_bytes(data)
    peak = _peak_counter()
    target.run(path, rng)
    more = peak()
    if more > MEMORY and not target.SIZED:
        raise outcome.Bad("memory", f"{more / 2**30:.1f} GiB of memory")
    stray = temporary_files(path.parent)
    if stray:
        raise outcome.Bad("stray", f"left behind: {', '.join(stray)[:200]}")


def _peak_counter() -> Callable[[], int]:
    """Starts a measurement of peak memory; a call of the result returns the maximum growth of the process in bytes."""
    before = resident()
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")

    def peak() -> int:
        with open("/proc/self/status") as lines:
            size = next((line.split()[1] for line in lines if line.startswith("VmHWM")), "0")
        return int(size) * 1024 - before

    return peak
