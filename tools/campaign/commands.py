"""Small commands that write files, for the tests with full disks, signals and closed streams."""

from __future__ import annotations

import gc
import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from campaign.children import Ended
from campaign.job import Job, empty, temporary_files
from campaign.outcome import FAULTS, captured, died, message
from campaign.seeds import BATCHES, DIGITS_DEPLOY, DIGITS_NET, DIGITS_SOLVER, IDX, Seeds

HDF5_OUTPUT = """
layer {{ name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param {{ source: "{source}" batch_size: 20 }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 32 kernel_size: 3 }} }}
layer {{ name: "o" type: "HDF5Output" bottom: "data" bottom: "label" hdf5_output_param {{ file_name: "features.h5" }} }}
layer {{ name: "sum" type: "Reduction" bottom: "conv1" top: "sum" }}
"""


@dataclass
class Command:
    """One command. arguments(folder): its arguments, to write to that folder, which is also the working folder. long:
    takes long enough for a signal during its run. trains: writes snapshots of its own in the folder."""

    arguments: Callable[[Path], list[object]]
    long: bool = False
    trains: bool = False


def commands(seeds: Seeds, folder: Path) -> dict[str, Command]:
    """All commands; files that they read besides the seeds are created in the folder."""
    weights = seeds / "digits.caffemodel"
    net = ["--model", DIGITS_NET, "--weights", weights]
    small = seeds.small_solver("lmdb", seeds.data, folder)
    images, hdf5 = seeds.data / "images", folder / "hdf5_output.prototxt"
    hdf5.write_text(HDF5_OUTPUT.format(source=seeds.data / "h5.txt"))
    mnist, cifar = folder / "mnist", folder / "cifar"
    _write_mnist(mnist)
    _write_cifar(cifar)
    sets = ("max_iter=60", "snapshot=10", "test_interval=30", "display=2")

    def train(solver: Path, *more: str) -> Callable[[Path], list[object]]:
        def arguments(place: Path) -> list[object]:
            overrides = [*sets, *more, f"snapshot_prefix={place / 'r'}"]
            return ["train", "--solver", solver, *(word for one in overrides for word in ("--set", one))]

        return arguments

    def to(name: str, *words: object) -> Callable[[Path], list[object]]:
        return lambda place: [*words, place / name]

    digits = f"net={DIGITS_NET}"
    compress = ["--target-flops", 0.5, "--cut", "--baseline-iterations", 40, "--iterations", 40, "--finetune", 20]
    path = ["path", "--solver", DIGITS_SOLVER, "--set", digits, "--strengths", "1,3", "--iterations", 30]
    teach = ["--teacher", DIGITS_NET, "--teacher-weights", weights]
    extract = ["extract", *net, "--blobs", "conv1", "--phase", "TRAIN", "--iterations", 15, "--output"]
    made = {
        "train": Command(train(DIGITS_SOLVER, digits), long=True, trains=True),
        "train-hdf5": Command(train(DIGITS_SOLVER, digits, "snapshot_format=HDF5"), long=True, trains=True),
        "train-lmdb": Command(train(small), long=True, trains=True),
        "compress": Command(to("c", "compress", "--model", DIGITS_NET, *compress, "--output"), long=True),
        "path": Command(to("p", *path, "--output"), long=True),
        "teach": Command(to("t", "teach", *net, *teach, "--output")),
        "extract-hdf5": Command(to("f.h5", *extract), long=True),
        "extract-lmdb": Command(to("f_lmdb", *extract), long=True),
        "data-mnist": Command(to("m", "data", "mnist", "--from", mnist, "--no-verify", "--to"), long=True),
        "data-cifar10": Command(to("m", "data", "cifar10", "--from", cifar, "--no-verify", "--to")),
        "convert-imageset": Command(to("db", "convert-imageset", f"{images}/", images / "list.txt"), long=True),
        "test-hdf5-output": Command(lambda place: ["test", "--model", hdf5, "--weights", weights, "--iterations", 20]),
        "mean": Command(to("mean.npy", "mean", seeds.data / "db")),
        "compact": Command(to("c", "compact", *net, "--output")),
        "prune": Command(to("p", "prune", *net, "--sparsity", 0.5, "--output")),
        "lowrank": Command(to("l", "lowrank", *net, "--error", 0.5, "--output"), long=True),
        "upgrade": Command(to("u.caffemodel", "upgrade", weights)),
        "upgrade-hdf5": Command(to("u.h5", "upgrade", weights)),
        "draw": Command(to("d.svg", "draw", DIGITS_NET)),
        "plot": Command(to("d.png", "plot", "filters", weights, "--output")),
        "test": Command(lambda place: ["test", *net, "--iterations", 40], long=True),
        "time": Command(lambda place: ["time", *net, "--iterations", 10], long=True),
    }
    if not seeds.notes:  # onnx is installed
        made["export"] = Command(to("d.onnx", "export", "--model", DIGITS_DEPLOY, "--weights", weights, "--output"))
        made["import"] = Command(to("i", "import", seeds / "digits.onnx", "--output"))
    return made


def load(command: Command, folder: Path) -> tuple[int, str]:
    """Runs the command in this process, so that its kernels are loaded for all children. Returns exit code and
    output."""
    empty(folder)
    back = os.getcwd()
    os.chdir(folder)
    try:
        return captured(words(command, folder))
    finally:
        os.chdir(back)
        gc.collect()


def words(command: Command, folder: Path) -> list[str]:
    return [str(word) for word in command.arguments(folder)]


def judge(job: Job, name: str, ended: Ended, codes: tuple[int, ...], folder: Path | None = None) -> bool:
    """Counts failures in how a command ended and in the files in its folder; returns whether there were none."""
    before = sum(job.count.found.values())
    if ended.code is None:
        job.find("hangs", f"{name}: went on after {ended.seconds:.0f} s: {died(ended.output)}", ended.output)
    elif ended.code < 0 and ended.code not in codes:
        job.find("signals", f"{name}: ended by signal {-ended.code}: {died(ended.output)}", ended.output)
    elif any(fault in ended.output for fault in FAULTS):
        job.find("tracebacks", f"{name}: {message(ended.output)}", ended.output)
    elif ended.code not in codes:
        what = f"{name}: exit code {ended.code}, not one of {codes}: {message(ended.output)}"
        job.find("other", what, ended.output)
    if folder is not None:
        if temporary := temporary_files(folder):
            job.find("stray", f"{name}: exit code {ended.code}, left behind {', '.join(temporary)[:200]}", ended.output)
        check_snapshots(job, name, folder)
    return sum(job.count.found.values()) == before


def check_snapshots(job: Job, name: str, folder: Path) -> list[Path]:
    """Counts incomplete states below the folder; returns all of them, the last one last."""
    from campaign.kills import iteration, whole

    states = sorted((path for path in folder.rglob("*.solverstate*") if not path.name.startswith(".")), key=iteration)
    for state in states:
        try:
            whole(state)
        except Exception as error:
            job.find("broken", f"{name}: {state.name}: {type(error).__name__}: {error}", source=folder)
    return states


def _write_mnist(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(IDX):
        count = 6000 if name.startswith("train") else 1000
        raw = struct.pack(">IIII", 0x803, count, 28, 28) + rng.bytes(count * 784)
        if number % 2:
            raw = struct.pack(">II", 0x801, count) + bytes(index % 10 for index in range(count))
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw, 1, mtime=0))


def _write_cifar(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in BATCHES:
        (folder / f"{name}.bin").write_bytes(b"".join(bytes([index % 10]) + rng.bytes(3072) for index in range(100)))
