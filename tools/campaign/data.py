"""Changes data while a run reads them: the run must end with one error and saved weights, not by a signal."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np

from campaign.children import Child, command
from campaign.commands import check_snapshots, judge
from campaign.job import Job
from campaign.outcome import message
from campaign.seeds import RECORDS, write_data

HELP = "data damaged, cut off, replaced or deleted while a run reads them: one error, a snapshot, never a signal"
UNIT = "runs"
LEAST = 10
NOTICED = 20.0
"""Maximum seconds until a run must detect the damage: it reads all of its data several times a second."""
Change = Callable[[Path, random.Random], object]


def _in_place(path: Path, start: int, raw: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(raw)


def _replace(path: Path, raw: bytes) -> None:
    temporary = path.with_name("new")
    temporary.write_bytes(raw)
    temporary.replace(path)


def _damaged_records(folder: Path, rng: random.Random) -> None:
    """Damages the first bytes of all records, so that they are no Datums."""
    path = folder / "db" / "data.mdb"
    raw = path.read_bytes()
    head = b"\x08\x01\x10\x08\x18\x08\x22\x40"  # of a Datum of 1 x 8 x 8
    at = raw.find(head)
    while at >= 0:
        _in_place(path, at, b"\xff" * 4)
        at = raw.find(head, at + 1)


def _lmdb(name: str) -> Change:
    def change(folder: Path, rng: random.Random) -> None:
        path = folder / "db" / "data.mdb"
        size = path.stat().st_size
        match name:
            case "zeroed":
                _in_place(path, 8192, bytes(size - 8192))
            case "cut off":
                os.truncate(path, rng.randrange(0, size // 2))
            case "overwritten":
                path.write_bytes(path.read_bytes()[: size // 4])
            case "deleted":
                shutil.rmtree(folder / "db")

    return change


def _image(name: str) -> Change:
    def change(folder: Path, rng: random.Random) -> None:
        from PIL import Image

        path = folder / "images" / f"{rng.randrange(RECORDS)}.png"
        match name:
            case "deleted":
                path.unlink()
            case "cut off":
                path.write_bytes(path.read_bytes()[: rng.randrange(60)])
            case "other size":
                Image.fromarray(np.zeros((9, 7), np.uint8)).save(path)
            case "garbage":
                _replace(path, rng.randbytes(200))

    return change


def _hdf5(shape: tuple[int, ...] | None, *, label: float = 0, value: float = 0) -> Change:
    """Replaces a file that is read by another file; shape None: by a file that is not HDF5."""

    def change(folder: Path, rng: random.Random) -> None:
        import h5py

        raw = rng.randbytes(5000)
        if shape is not None:
            with h5py.File(folder / "other.h5", "w") as file:
                file["data"] = np.full(shape, value, np.float32)
                file["label"] = np.full(shape[0], label, np.float32)
            raw = (folder / "other.h5").read_bytes()
        _replace(folder / f"h{rng.randrange(2)}.h5", raw)

    return change


CHANGES: dict[str, dict[str, tuple[Change, bool]]] = {
    "lmdb": {
        "records damaged": (_damaged_records, True),
        "pages zeroed": (_lmdb("zeroed"), True),
        "cut off": (_lmdb("cut off"), True),
        "overwritten by a part": (_lmdb("overwritten"), True),
        "deleted": (_lmdb("deleted"), False),
    },
    "image": {name: (_image(name), True) for name in ("deleted", "cut off", "other size", "garbage")},
    "hdf5": {
        "garbage": (_hdf5(None), True),
        "deleted": (lambda folder, rng: (folder / "h1.h5").unlink(), True),
        "fewer rows": (_hdf5((50, 1, 8, 8)), False),
        "other shape": (_hdf5((100, 1, 8, 9)), True),
        "shape that would broadcast": (_hdf5((100, 1, 1, 1)), True),
        "NaN": (_hdf5((100, 1, 8, 8), value=float("nan")), True),
        "label 17 of 10": (_hdf5((100, 1, 8, 8), label=17), True),
    },
}
"""Kind of data -> its changes, and whether the run must detect each."""


def weights() -> dict[str, float]:
    return dict.fromkeys(CHANGES, 1.0)


def run(job: Job) -> None:
    rng = job.rng("changes")
    names = list(CHANGES[job.target])
    number = 0
    while not job.over():
        _one(job, names[number % len(names)], rng)
        number += 1


def _one(job: Job, name: str, rng: random.Random) -> None:
    change, must = CHANGES[job.target][name]
    folder, out = job.folder / "data", job.folder / "run"
    for place in (folder, out):
        shutil.rmtree(place, ignore_errors=True)
    write_data(folder, np.random.default_rng(rng.randrange(2**32)))
    solver = job.seeds.small_solver(job.target, folder, job.folder)
    sets = ("max_iter=1000000", "snapshot=0", "display=1", "test_interval=1000000", f"snapshot_prefix={out / 'r'}")
    child = Child(
        command(["train", "--solver", str(solver), *(word for one in sets for word in ("--set", one))]),
        job.folder / "out.txt",
    )
    began = False
    for _ in range(600):
        began = began or (out / "metrics.jsonl").exists()
        if began or child.wait(0.05):
            break
    child.wait(rng.uniform(0.05, 0.5))
    change(folder, rng)
    noticed = child.wait(NOTICED if must else 2)
    if not noticed:
        child.send(signal.SIGTERM)
    ended = child.end(60)
    job.count.runs += 1
    which = f"{job.target} {name}"
    if not noticed and must:
        job.find("other", f"{which}: the run went on as if nothing had happened")
    if judge(job, which, ended, (1, 2) if noticed else (130,), out):
        states = check_snapshots(job, which, out)
        learned = re.search(r"Iteration [1-9]\d* \(", ended.output)  # in the first iteration there is nothing to save
        if not states and name != "NaN" and learned:
            job.find("other", f"{which}: ended without a snapshot: {message(ended.output)}", ended.output)
        if noticed and ended.output.count("error:") != 1:
            job.find("other", f"{which}: {ended.output.count('error:')} errors instead of one", ended.output)
