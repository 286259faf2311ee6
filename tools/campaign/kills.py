"""Kills runs with `kill -9` at random moments: files on disk must be complete, and a continued run must end like an
undisturbed one."""

from __future__ import annotations

import gc
import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from campaign.children import Child, Ended, command
from campaign.children import run as run_child
from campaign.job import Job, temporary_files
from campaign.outcome import FAULTS, captured, died, message
from campaign.seeds import DIGITS_NET, DIGITS_SOLVER

HELP = "kill -9 at random moments of training and compressing; snapshots whole, resumed runs the same bit for bit"
UNIT = "kills"
LEAST = 20
MOST_SECONDS = 300.0
"""Maximum seconds of an uninterrupted run."""
KILLS_A_CHAIN = 15
"""Number of kills after which a run is left to its end."""
SAME_FIELDS = ("type", "iteration", "loss", "lr", "outputs", "penalty", "net")
"""Fields of a line of metrics.jsonl that do not depend on time."""


@dataclass
class Run:
    """One kind of run: arguments of `sslnet train` besides its solver, and its data.

    data     "digits", or a kind of seeds.DATA_LAYERS
    """

    sets: tuple[str, ...]
    data: str = "digits"
    options: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def suffix(self) -> str:
        return ".h5" if "snapshot_format=HDF5" in self.sets else ""

    @property
    def iterations(self) -> int:
        return int(next(one for one in self.sets if one.startswith("max_iter=")).partition("=")[2])


SHORT = ("max_iter=60", "snapshot=2", "test_interval=20", "display=5")
RUNS = {
    "sgd": Run((*SHORT, "momentum=0.9")),
    "nesterov": Run((*SHORT, "type=Nesterov")),
    "adam-hdf5": Run((*SHORT, "type=Adam", "base_lr=0.002", "snapshot_format=HDF5")),
    "adamw": Run((*SHORT, "type=AdamW", "base_lr=0.001")),
    "rmsprop": Run((*SHORT, "type=RMSProp", "momentum=0", "base_lr=0.001")),
    "adagrad-hdf5": Run((*SHORT, "type=AdaGrad", "momentum=0", "base_lr=0.005", "snapshot_format=HDF5")),
    "adadelta": Run((*SHORT, "type=AdaDelta", "momentum=0.95", "base_lr=1")),
    "target": Run(("max_iter=200", "snapshot=3", "test_interval=100"), options=("--target-flops", "0.3", "--cut")),
    "lmdb": Run(SHORT, "lmdb"),
    "images": Run(SHORT, "image"),
    "hdf5-data": Run(SHORT, "hdf5"),
}
COMPRESS = (
    "--target-flops", "0.4", "--cut", "--baseline-iterations", "60", "--iterations", "100", "--finetune", "40",
    "--set", "snapshot=3",
)  # fmt: skip


def weights() -> dict[str, float]:
    return {name: one.weight for name, one in RUNS.items()} | {"compress": 2.0}


def run(job: Job) -> None:
    if job.target == "compress":
        Compressing(job).run()
    else:
        Training(job, RUNS[job.target]).run()


class Chains:
    """Base of runs that are killed and continued repeatedly; a subclass defines the run, and the files required after
    each kill."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = job.folder
        self.rng = job.rng("kills")

    def arguments(self, folder: Path, rng: random.Random | None) -> list[str]:
        """Arguments that start the run in the folder, or continue it. rng: None for an undisturbed run."""
        raise NotImplementedError

    def check_killed(self, folder: Path) -> None:
        """Checks the conditions for the files that hold at any moment."""
        raise NotImplementedError

    def check_ended(self, folder: Path, reference: Path) -> None:
        """Checks the conditions for the files of a completed run, compared with those of an undisturbed run."""
        raise NotImplementedError

    def run(self) -> None:
        reference = self.folder / "reference"
        captured(self.arguments(self.folder / "warm", None))  # in this process, so that children have the kernels
        gc.collect()
        ended = run_child(command(self.arguments(reference, None)), self.folder / "out.txt", seconds=MOST_SECONDS)
        if ended.code != 0:
            self._fail("other", f"the undisturbed run ended with {ended.code}: {message(ended.output)}", ended)
            return
        chain = 0
        while not self.job.over():
            chain += 1
            folder = self.folder / f"chain{chain}"
            if self._chain(folder, ended.seconds):
                self.check_ended(folder, reference)
            if temporary := temporary_files(folder):
                self.find("stray", f"left behind by killed runs: {', '.join(temporary)[:200]}", folder)
            shutil.rmtree(folder, ignore_errors=True)

    def _chain(self, folder: Path, seconds: float) -> bool:
        """One run with its kills; returns whether it reached its end."""
        for number in range(KILLS_A_CHAIN + 1):
            last = number == KILLS_A_CHAIN or self.job.over()
            child = Child(command(self.arguments(folder, self.rng)), self.folder / "out.txt")
            if child.wait(MOST_SECONDS if last else self.rng.uniform(0.01, 0.8) * seconds):
                return self._came_to_its_end(child.end(0))
            child.kill()
            ended = child.end(5)
            if last:
                self._fail("hangs", f"went on for more than {MOST_SECONDS:g} s", ended)
                return False
            self.job.count.runs += 1
            self.check_killed(folder)
        return False

    def _came_to_its_end(self, ended: Ended) -> bool:
        if ended.code == 0:
            return True
        if ended.code is not None and ended.code < 0:
            self._fail("signals", f"signal {-ended.code}: {died(ended.output)}", ended)
        elif any(fault in ended.output for fault in FAULTS):
            self._fail("tracebacks", message(ended.output), ended)
        else:
            self._fail(
                "differing", f"a killed run did not go on: exit code {ended.code}: {message(ended.output)}", ended
            )
        return False

    def _fail(self, kind: str, what: str, ended: Ended) -> None:
        self.job.find(kind, what, ended.output)

    def find(self, kind: str, what: str, source: Path | None = None) -> None:
        self.job.find(kind, what, source=source)

    def check(self, kind: str, what: str, source: Path, test: Callable[[], object]) -> Any:
        """The result of `test`; an exception is a finding of that kind, and the result is None."""
        try:
            return test()
        except Exception as error:
            self.find(kind, f"{what}: {type(error).__name__}: {str(error)[:200]}", source)
            return None


class Training(Chains):
    def __init__(self, job: Job, how: Run) -> None:
        super().__init__(job)
        self.how = how
        self.solver = DIGITS_SOLVER
        self.sets = [*how.sets, f"net={DIGITS_NET}"] if how.data == "digits" else [*how.sets]
        if how.data != "digits":
            self.solver = job.seeds.small_solver(how.data, job.seeds.data, self.folder)

    def arguments(self, folder: Path, rng: random.Random | None) -> list[str]:
        words = ["train", "--solver", str(self.solver), *self.how.options]
        words += [word for one in (*self.sets, f"snapshot_prefix={folder / 'r'}") for word in ("--set", one)]
        from sslnet.solver.snapshot import find_weights, read_state

        states = self._states(folder)
        if rng is not None and states:
            if len(states) > 1 and rng.random() < 0.2:  # the run continues from there, so later lines are void
                later = states.pop()
                find_weights(read_state(later), later).unlink()
                later.unlink()
            words += ["--snapshot", str(states[-1])]
        return words

    def _states(self, folder: Path) -> list[Path]:
        return sorted(folder.glob(f"r_iter_*.solverstate{self.how.suffix}"), key=iteration)

    def check_killed(self, folder: Path) -> None:
        for state in self._states(folder)[-4:]:
            self.check("broken", state.name, folder, partial(whole, state))
        for path in folder.glob("metrics*.jsonl"):
            lines = path.read_text().split("\n")[:-1]  # text after the last line end was incomplete
            self.check("broken", path.name, folder, partial(_parse, lines))
        for state in self._states(folder)[:-3]:  # thousands of folders would fill the disk
            state.unlink()
            weights_of(state).unlink(missing_ok=True)

    def check_ended(self, folder: Path, reference: Path) -> None:
        name = f"r_iter_{self.how.iterations}.solverstate{self.how.suffix}"
        for what, read in (("weights", weight_bytes), ("state", state_bytes)):
            same = self.check("differing", what, folder, partial(_same, read, folder / name, reference / name))
            if same is False:
                self.find("differing", f"the {what} at the end differ from the undisturbed run's", folder)
        same = self.check("differing", "metrics.jsonl", folder, partial(_same, measured, folder, reference))
        if same is False:
            one, other = measured(folder), measured(reference)
            lines = [
                f"{kind}: {line}"
                for kind, a, b in (("only here", one, other), ("missing", other, one))
                for line in a
                if line not in b
            ]
            what = f"metrics.jsonl differs from the undisturbed run's: {'; '.join(lines)[:200]}"
            self.job.find("differing", what, "\n".join(lines), folder)
        if (folder / "r.lock").exists():
            self.find("stray", "the lock is still there", folder)


def _parse(lines: list[str]) -> None:
    for line in lines:
        json.loads(line)


def _same(read: Callable[[Path], Any], one: Path, other: Path) -> bool:
    return bool(read(one) == read(other))


def iteration(path: Path) -> int:
    match = re.search(r"_iter_(\d+)\.", path.name)
    return int(match[1]) if match else -1


def weights_of(state: Path) -> Path:
    return state.with_name(state.name.replace(".solverstate", ".caffemodel"))


def whole(state: Path) -> None:
    """Reads a state and its weights. raises an exception for an incomplete file"""
    from sslnet.net.weights import read_weights
    from sslnet.solver.snapshot import find_weights, read_state

    found = read_state(state)
    if found.iteration != iteration(state):
        raise ValueError(f"it says that it is of iteration {found.iteration}")
    read_weights(find_weights(found, state))


def state_bytes(path: Path) -> tuple[Any, ...]:
    from sslnet.solver.snapshot import read_state

    state = read_state(path)
    arrays = sorted((name, array.tobytes()) for name, array in state.arrays.items())
    history = [array.tobytes() for array in state.history]
    return state.iteration, state.current_step, state.seed, history, sorted(state.layer_states.items()), arrays


def weight_bytes(state: Path) -> list[Any]:
    from sslnet.net.weights import read_weights

    return sorted(
        (name, [array.tobytes() for array in blobs]) for name, blobs in read_weights(weights_of(state)).items()
    )


def measured(folder: Path) -> list[dict[str, Any]]:
    """The lines of training and testing, without fields that depend on time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: line[name] for name in SAME_FIELDS if name in line}
        for line in lines
        if line["type"] in ("train", "test")
    ]


class Compressing(Chains):
    """`sslnet compress`, which trains several nets in turn and keeps all its files in one folder."""

    def arguments(self, folder: Path, rng: random.Random | None) -> list[str]:
        return ["compress", "--model", str(DIGITS_NET), "--output", str(folder), *COMPRESS]

    def check_killed(self, folder: Path) -> None:
        if (folder / "state.json").exists():
            self.check("broken", "state.json", folder, lambda: json.loads((folder / "state.json").read_text()))
        for state in folder.glob("[!.]*_iter_*.solverstate"):
            self.check("broken", state.name, folder, partial(whole, state))

    def check_ended(self, folder: Path, reference: Path) -> None:
        names, wanted = (sorted(path.name for path in place.iterdir()) for place in (folder, reference))
        if names != wanted:
            self.find("differing", f"other files than the undisturbed run's: {sorted({*names} ^ {*wanted})}", folder)
        for name in wanted:
            one, other = folder / name, reference / name
            if other.suffix in (".caffemodel", ".prototxt") and one.exists():
                same = one.read_bytes().replace(str(folder).encode(), b"") == other.read_bytes().replace(
                    str(reference).encode(), b""
                )
                if not same:
                    self.find("differing", f"{name} differs from the undisturbed run's", folder)
