"""Sends Ctrl-C, SIGTERM and hang-ups, and closes pipes, at random moments of all commands that take long."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from campaign.children import Child, Ended, command
from campaign.commands import Command, check_snapshots, commands, judge, load, words
from campaign.job import Job, empty
from campaign.outcome import message

HELP = "SIGINT, SIGTERM, SIGHUP and closed pipes at random moments of long commands; codes, snapshots, no remains"
UNIT = "signals"
LEAST = 15
SECONDS = 120.0
"""Maximum seconds of a command after its signal."""
AGAIN = 0.2
"""Fraction of the runs that get the signal twice."""
NUMBERS = {"sigint": signal.SIGINT, "sigterm": signal.SIGTERM, "sighup": signal.SIGHUP}
CODES = {
    "sigint": (0, 130, -signal.SIGINT),
    "sigterm": (0, 130, 143, -signal.SIGTERM),
    "sighup": (0, 129, 130, -signal.SIGHUP),
    "pipe": (0, 1, 141, -signal.SIGPIPE),
}
"""Allowed exit codes after a signal; 0: the run was complete, or continues after a hang-up."""
STOPPING = "stopping with a snapshot"
"""Message of a run that will save a snapshot."""


def weights() -> dict[str, float]:
    return dict.fromkeys(CODES, 1.0)


def run(job: Job) -> None:
    made = {name: one for name, one in commands(job.seeds, job.folder / "made").items() if one.long}
    place = job.folder / "place"
    times: dict[str, float] = {}
    rng = job.rng("moments")
    while not job.over():
        name = rng.choice(list(made))
        if name not in times:
            code, output = load(made[name], place)
            if code != 0:
                job.find("other", f"{name}: cannot be run at all: exit code {code}: {message(output)}")
            empty(place)
            times[name] = _start(job, made[name], place).end(SECONDS).seconds
        empty(place)
        when = rng.uniform(0.01, 1.0) * times[name]
        again = rng.uniform(0.005, 0.3) if rng.random() < AGAIN else None
        which = f"{name} after {when:.2f} s" + (f", again after {again:.2f} s" if again else "")
        ended = (_pipe if job.target == "pipe" else _signal)(job, made[name], place, when, again)
        job.count.runs += 1
        judge(job, which, ended, CODES[job.target], place)
        if made[name].trains:
            _check_training(job, which, ended, place, promised=again is None)


def _start(job: Job, what: Command, place: Path, pipe: int | None = None, both: bool = False) -> Child:
    def before() -> None:
        os.chdir(place)
        if pipe is not None:
            os.dup2(pipe, 1)
            if both:
                os.dup2(pipe, 2)

    return Child(command(words(what, place)), job.folder / "out.txt", before)


def _signal(job: Job, what: Command, place: Path, when: float, again: float | None) -> Ended:
    child = _start(job, what, place)
    for pause in [when] if again is None else [when, again]:
        if child.wait(pause):
            break
        child.send(NUMBERS[job.target])
    return child.end(SECONDS)


def _pipe(job: Job, what: Command, place: Path, when: float, again: float | None) -> Ended:
    """Sends stdout, and in half of the cases also stderr, to a reader that ends early, as `2>&1 | head` does."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    child = _start(job, what, place, write, both=job.rng(when).random() < 0.5)
    os.close(write)
    end = time.monotonic() + when
    while not child.wait(min(0.05, max(0.0, end - time.monotonic()))) and time.monotonic() < end:
        try:
            os.read(read, 1 << 16)
        except BlockingIOError:
            continue
    os.close(read)
    return child.end(SECONDS)


def _check_training(job: Job, which: str, ended: Ended, place: Path, promised: bool) -> None:
    """Checks a stopped run: if training had begun it has saved a snapshot, and no snapshot remains locked."""
    states = check_snapshots(job, which, place)
    began = (place / "metrics.jsonl").exists()
    stopped = STOPPING in ended.output or (job.target == "pipe" and began)
    if promised and stopped and not states:
        job.find("other", f"{which}: exit code {ended.code} without a snapshot", ended.output)
    if ended.code in (0, 130, 141) and (place / "r.lock").exists():
        job.find("stray", f"{which}: exit code {ended.code}, the lock is still there", ended.output)
