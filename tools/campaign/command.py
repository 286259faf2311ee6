"""The command line of ``tools/torture``: divides the time, runs the targets of the parts in parallel, prints the
table."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from campaign import counts, fuzz, outcome, page
from campaign.children import Child, die_with_parent
from campaign.counts import Count
from campaign.job import Job, Skipped
from campaign.parts import PARTS
from campaign.record import Record
from campaign.seeds import Seeds

DESCRIPTION = """\
Tortures sslnet: kills its runs, gives it damaged files, full disks, signals, and data that change while they are read.

parts:
{parts}

The table has a row for each target. All columns behind the minutes are to be 0; "other" counts wrong exit codes, control
characters in the output, wrong values and leaks. Exit code 1 if anything is not 0. Ctrl-C shows the table so far.
What was found is described in WORK/findings, with the input; the same --seed makes the same inputs, and
--repeat TARGET/NUMBER runs one of fuzz's once more, to be looked at."""

LONGEST_END = 600.0
"""Maximum seconds of a target beyond its time: kills end with a complete run."""
SHOW_EVERY = 20.0
"""Seconds between two progress lines."""
SAVE_EVERY = 5.0


@dataclass
class Task:
    """One target of one part, and its fraction of the time. seconds: its time, after it has started."""

    part: str
    target: str
    weight: float
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.part}/{self.target}"


class Running:
    """A task in its process, and its reports."""

    def __init__(self, task: Task, seeds: Seeds, options: argparse.Namespace) -> None:
        folder = options.work / task.name.replace("/", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.task = task
        self.count = Count(task.part, task.target, PARTS[task.part][0].UNIT, seeds=[options.seed])
        self.started = time.monotonic()
        self._rest = b""
        self.pipe, report = os.pipe()
        os.set_blocking(self.pipe, False)
        job = Job(self.count, seeds, folder, options.seed, task.seconds, report)
        self.child = Child(lambda: work(job), options.work / f"{folder.name}.txt")
        os.close(report)
        self.folder = folder

    def take(self) -> None:
        """Reads the task's reports."""
        with contextlib.suppress(BlockingIOError):
            while raw := os.read(self.pipe, 1 << 16):
                self._rest += raw
        *lines, self._rest = self._rest.split(b"\n")
        if lines:
            self.count = Count.from_dict(json.loads(lines[-1]))

    def left(self) -> float:
        """The remaining seconds of its time."""
        return max(0.0, self.started + self.task.seconds - time.monotonic())

    def late(self) -> bool:
        return time.monotonic() - self.started > self.task.seconds + LONGEST_END

    def end(self) -> None:
        """Ends the process, or handles its end; an unexpected end is a finding as well."""
        ended = self.child.end(0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.take()
        os.close(self.pipe)
        if ended.code is None:
            self.count.find("hangs", "the process of this target went on long after its time")
        elif ended.code:
            self.count.find("other", f"the process of this target ended with {ended.code}: {ended.output[-600:]}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        self.take()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.end(10)
        self.take()


def work(job: Job) -> int:
    """Runs the task, in its own process."""
    os.setsid()  # Ctrl-C goes only to the command, and all children of this process can be ended together
    die_with_parent()
    try:
        PARTS[job.count.part][0].run(job)
    except Skipped as reason:
        job.count.skipped = str(reason)
    job.tell(now=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the table is also printed after an interrupt
    record = Record(options.record)
    own = options.work is None
    options.work = Path(tempfile.mkdtemp(prefix="sslnet-torture-")) if own else options.work.absolute()
    options.work.mkdir(parents=True, exist_ok=True)
    keep = False
    try:
        seeds = make_seeds(options)
        if options.repeat:
            keep = True
            return repeat(options, seeds)
        interrupted = run(tasks(options), seeds, record, options)
        keep = show(record, options, interrupted)
        return 130 if interrupted else int(keep)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        if own and not keep:
            shutil.rmtree(options.work, ignore_errors=True)


def make_seeds(options: argparse.Namespace) -> Seeds:
    from sslnet.kernels.runtime.threads import set_num_threads

    set_num_threads(options.threads)
    folder = options.work / "seeds"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(options.work / "findings", ignore_errors=True)
    print(f"seed {options.seed}, work in {options.work}; making the seed files", flush=True)
    return Seeds(folder)


def run(waiting: list[Task], seeds: Seeds, record: Record, options: argparse.Namespace) -> bool:
    """Runs all tasks, ``jobs`` at a time. Returns whether the run was interrupted."""
    started = shown = saved = time.monotonic()
    number = len(waiting)
    running: list[Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                left = started + 60 * options.minutes - time.monotonic()
                task = waiting.pop(0)
                task.seconds = share(task, waiting, left, options.jobs, [one.left() for one in running])
                running.append(Running(task, seeds, options))
            select.select([one.pipe for one in running], [], [], 0.5)
            for one in list(running):
                one.take()
                if one.child.wait(0) or one.late():
                    one.end()
                    running.remove(one)
                record.put(one.count)
            now = time.monotonic()
            if now - saved > SAVE_EVERY:
                saved = now
                record.save()
            if now - shown > SHOW_EVERY:
                shown = now
                print(
                    progress(now - started, number - len(waiting) - len(running), number, running, record), flush=True
                )
    except KeyboardInterrupt:
        return True
    finally:
        for one in running:
            one.kill()
            record.put(one.count)
        record.save()
    return False


def share(task: Task, waiting: list[Task], left: float, jobs: int, running: list[float]) -> float:
    """Seconds for the next task from the remaining time; time that other tasks used or saved is divided as well.

    running   remaining time of the running tasks
    """
    free = left * jobs - sum(running)
    return max(0.0, min(left, free * task.weight / sum(one.weight for one in [task, *waiting])))


def progress(seconds: float, done: int, number: int, running: list[Running], record: Record) -> str:
    """One line of progress: the time, the running tasks, the findings."""
    at = ", ".join(f"{one.task.name} {one.count.runs:,}" for one in running)
    found = sum(sum(count.found.values()) for count in record.new.values())
    return f"{seconds / 60:5.1f} min, {done} of {number} targets done; {at}; {found} findings"


def show(record: Record, options: argparse.Namespace, interrupted: bool) -> bool:
    """Prints the table and the findings; returns whether there are any findings."""
    rows = list(record.new.values())
    print(f"\n{counts.text(rows)}\n")
    for count in rows:
        kinds = count.kinds()
        for finding in kinds[: options.show]:
            print(f"{count.name}: {finding[:300]}")
        if len(kinds) > options.show:
            print(f"{count.name}: ... {sum(count.found.values())} in all")
    failed = any(count.failed for count in rows)
    if failed:
        print(f"\nwhat was found: {options.work / 'findings'}, with the inputs")
    if interrupted:
        print("interrupted", file=sys.stderr)
    if options.page:
        page.write(page.PAGE, record)
        print(f"written: {page.PAGE}")
    return failed


def repeat(options: argparse.Namespace, seeds: Seeds) -> int:
    """Runs one input of fuzz in this process."""
    name, _, number = options.repeat.partition("/")
    folder = options.work / f"fuzz-{name}"
    job = Job(Count("fuzz", name), seeds, folder, options.seed, 0)
    supervisor = fuzz.Supervisor(job, fuzz.TARGETS[name][0](seeds))
    supervisor._enter()
    try:
        fuzz.one(job, supervisor.target, supervisor.path, int(number), supervisor.kept)
    except outcome.Bad as bad:
        outcome.show(bad)
        print(f"the input: {supervisor.kept}")
        return 1
    print(f"nothing wrong; the input: {supervisor.kept}")
    return 0


def tasks(options: argparse.Namespace) -> list[Task]:
    """All requested targets, those with most time first; a random choice for a part whose time is not enough for
    all."""
    shares = {part: PARTS[part][1] for part in options.only}
    made = []
    for part, share in shares.items():
        module = PARTS[part][0]
        weights = module.weights()
        chosen = [target for target in weights if not options.targets or target in options.targets]
        seconds = 60 * options.minutes * options.jobs * share / sum(shares.values())
        if not options.targets and seconds < module.LEAST * len(chosen):
            rng = random.Random(f"{options.seed}/{part}")
            chosen = rng.sample(chosen, max(1, int(seconds / module.LEAST)))
        total = sum(weights[target] for target in chosen)
        made += [Task(part, target, share * weights[target] / total) for target in chosen]
    return sorted(made, key=lambda task: -task.weight)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parts = "\n".join(f"  {name:<8} {module.HELP}" for name, (module, _) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="tools/torture",
        description=DESCRIPTION.format(parts=parts),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=float, default=10, metavar="N", help="minutes for all parts together; default 10"
    )
    parser.add_argument("--only", type=_names, default=list(PARTS), metavar="A,B", help="these parts; default: all")
    parser.add_argument(
        "--targets", type=_names, default=[], metavar="A,B", help="these targets of the parts; default: all"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of all random numbers; default 1")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
        help="targets run at the same time; default: one per core")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each target; default 1")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="folder for all output, replaces the findings of an earlier run; default: a temporary folder",
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="add the counts to this JSON file")
    parser.add_argument("--page", action="store_true", help="write the record's table into docs/reliability.md")
    parser.add_argument(
        "--show",
        type=int,
        default=5,
        metavar="N",
        help="number of kinds of findings to print for each target; default 5",
    )
    parser.add_argument("--repeat", metavar="TARGET/NUMBER", help="run only this input of fuzz, in this process")
    options = parser.parse_args(arguments)
    for part in options.only:
        if part not in PARTS:
            parser.error(f'there is no part "{part}"; there are {", ".join(PARTS)}')
    known = [target for part in options.only for target in PARTS[part][0].weights()]
    for target in options.targets:
        if target not in known:
            parser.error(f'there is no target "{target}"; there are {", ".join(known)}')
    if not options.minutes > 0 or options.jobs < 1 or options.threads < 1:
        parser.error("--minutes, --jobs and --threads must be above 0")
    if options.repeat and options.repeat.partition("/")[0] not in fuzz.TARGETS:
        parser.error(f"--repeat is written TARGET/NUMBER, with one of {', '.join(fuzz.TARGETS)}")
    return options


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
