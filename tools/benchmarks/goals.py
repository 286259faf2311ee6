"""Runs all sections one after the other and tells which goals are met.

With --write FILE.md the part of that page between the markers is written anew, and its figures go into FILE.json beside it;
an interrupted run goes on with --only, for the sections that are missing. Every instruction set (--isa) has its own tables
on the page.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.optimiser import KINDS
from benchmarks.sparse import LAYERS
from benchmarks.tables import Column, Row, head_line, line
from benchmarks.turns import OURS
from benchmarks.workloads import WORKLOADS

HELP = "All sections, and which goals are met; --write makes a page of it."
SECOND_THREAD_BATCH = 16
"""Batch size from which on a second thread must be faster."""
MANY_TAPS = 500
"""Multiply-adds per output from which on a convolution must come close to the machine's peak."""

Sections = dict[str, Any]


@dataclass
class Goal:
    """A goal: the required and the desired value; the figures by number of threads, each with a note."""

    what: str
    must: float
    aim: float | None
    higher: bool = False
    figures: dict[int, float] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)

    def met(self) -> str:
        """The verdict, by the worst of the figures."""
        if not self.figures:
            return "not measured"
        sign = -1 if self.higher else 1
        worst = max(sign * value for value in self.figures.values())
        if self.aim is not None and worst <= sign * self.aim:
            return "aim"
        return "must" if worst <= sign * self.must else "MISSED"

    def limit(self, value: float | None) -> str:
        return "" if value is None else f"{'≥' if self.higher else '≤'} {value:g}"

    def figure(self, threads: int) -> str:
        if threads not in self.figures:
            return ""
        note = self.notes.get(threads, "")
        return f"{self.figures[threads]:.2f}{note and f' ({note})'}"


def columns(threads: list[int]) -> list[Column]:
    """The cells of this goal in the table of goals."""
    heads = [(count, "1 thread" if count == 1 else f"{count} threads") for count in threads]
    return [
        Column("goal", 72, lambda row: row["goal"].what, left=True),
        Column("must", 6, lambda row: row["goal"].limit(row["goal"].must)),
        Column("aim", 6, lambda row: row["goal"].limit(row["goal"].aim)),
        *(Column(head, 30, lambda row, count=count: row["goal"].figure(count)) for count, head in heads),
        Column("met", 12, lambda row: row["goal"].met(), left=True),
    ]


def goals_of(sections: Sections) -> list[Goal]:
    """All goals, with the measured figures."""

    def rows(name: str) -> list[Row]:
        found: list[Row] = sections.get(name, {}).get("rows", [])
        return found

    nets = [row for row in rows("nets") if row["part"] == "iteration"]
    return [
        *_training(nets),
        *_convolutions(rows("convs")),
        *_inference(rows("inference")),
        _layers(rows("layers")),
        *_optimiser(rows("optimiser")),
        *_sparse(rows("sparse")),
        *_memory(rows("memory")),
        *_second_thread(nets),
        *_caffe(nets),
    ]


def _training(rows: list[Row]) -> Iterator[Goal]:
    for workload in WORKLOADS.values():
        title = f"training {workload.title}, {workload.batch} images: time by torch's"
        yield _ratios(title, workload.must, workload.aim, [row for row in rows if row["what"] == workload.name])


def _ratios(what: str, must: float, aim: float | None, rows: list[Row]) -> Goal:
    """A goal whose figures are the ratios of the rows, one for each number of threads."""
    return Goal(what, must, aim, figures={row["threads"]: row["ratio"] for row in rows if "ratio" in row})


def _convolutions(rows: list[Row]) -> Iterator[Goal]:
    for what in ("forward", "input", "weights"):
        title = {"forward": "forward", "input": "gradient of the input", "weights": "gradient of the weights"}[what]
        found = [row for row in rows if row["part"] == what and "ratio" in row]
        yield _worst(f"convolutions, {title}, slowest shape: time by torch's", 1.0, 0.75, found, lambda r: r["ratio"])
    many = [row for row in rows if row["taps"] >= MANY_TAPS]
    yield _worst(
        f"convolutions of {MANY_TAPS} taps or more, slowest: share of the peak",
        0.85, None, many, lambda row: row["share_of_peak"], higher=True,
    )  # fmt: skip


def _worst(
    what: str, must: float, aim: float | None, rows: list[Row], value: Callable[[Row], float], higher: bool = False
) -> Goal:
    """A goal for every row: the worst row for each number of threads, and how many rows reach it."""
    goal = Goal(what, must, aim, higher)
    for threads in sorted({row["threads"] for row in rows}):
        mine = [row for row in rows if row["threads"] == threads]
        worst = (min if higher else max)(mine, key=value)
        good = sum(value(row) >= must if higher else value(row) <= must for row in mine)
        goal.figures[threads] = value(worst)
        name = (
            worst["what"]
            if higher or worst["part"] in ("forward", "input", "weights")
            else f"{worst['what']} {worst['part']}"
        )
        goal.notes[threads] = f"{name}; {good} of {len(mine)} reach it"
    return goal


SMALL_NETS = ("lenet", "resnet20")
"""Nets whose layers take microseconds, so that what stands between them counts."""


def _inference(rows: list[Row]) -> Iterator[Goal]:
    for row in dict.fromkeys(row["what"] for row in rows):
        found = [r for r in rows if r["what"] == row and r["part"] == "batch 1" and "onnxruntime" in r["times"]]
        small = row in SMALL_NETS
        yield Goal(
            f"inference {row}, 1 image: time by onnxruntime's", *((0.75, 0.7) if small else (1.0, 0.8)),
            figures={r["threads"]: r["times"]["onnxruntime"]["ratio"] for r in found},
        )  # fmt: skip


def _layers(rows: list[Row]) -> Goal:
    found = [row for row in rows if "ratio" in row]
    return _worst("other layers, slowest: time by torch's", 0.5, None, found, lambda row: row["ratio"])


def _optimiser(rows: list[Row]) -> Iterator[Goal]:
    for kind in KINDS:
        found = [row for row in rows if row["what"] == kind and "torch fused" in row["times"]]
        title = f"{kind.replace('-', ', prox of ', 1).replace('-', ' and ')}, 61 M parameters"
        yield Goal(
            f"{title}: time by torch fused", 1.0, None,
            figures={row["threads"]: row["times"]["torch fused"]["ratio"] for row in found},
        )  # fmt: skip


def _sparse(rows: list[Row]) -> Iterator[Goal]:
    for name in LAYERS:
        for batch in (1, 16):
            goal = Goal(f"AlexNet {name}, structure, {_images(batch)}: speedup by limit", 0.75, 0.9, higher=True)
            for row in rows:
                if row["what"] == name and row["part"] == f"structure batch {batch}":
                    speedup = row["times"]["product"]["median"] / row["times"][OURS]["median"]
                    goal.figures[row["threads"]] = speedup / row["limit"]
                    goal.notes[row["threads"]] = f"{speedup:.2f} of {row['limit']:.2f}; paper {row['paper']:.2f}"
            yield goal


def _images(batch: int) -> str:
    return "1 image" if batch == 1 else f"{batch} images"


def _memory(rows: list[Row]) -> Iterator[Goal]:
    for row in rows:
        workload = WORKLOADS[row["what"]]
        yield _ratios(f"memory, {workload.title}, {workload.batch} images: peak by torch's", 1.0, 0.7, [row])


def _second_thread(rows: list[Row]) -> Iterator[Goal]:
    """The last figure stands under the number of threads that it is about."""
    times = {(row["what"], row["threads"]): row["times"][OURS]["median"] for row in rows}
    for workload in WORKLOADS.values():
        if workload.batch >= SECOND_THREAD_BATCH and {(workload.name, 1), (workload.name, 2)} <= times.keys():
            gain = times[workload.name, 1] / times[workload.name, 2]
            title = f"second thread, {workload.title}, {workload.batch} images: times as fast"
            yield Goal(title, 1.7, 1.9, True, figures={2: gain})


def _caffe(rows: list[Row]) -> Iterator[Goal]:
    for row in rows:
        caffe = WORKLOADS[row["what"]].caffe
        if caffe is not None and row["threads"] == 2:
            title = f"{WORKLOADS[row['what']].title}, {WORKLOADS[row['what']].batch} images: times as fast as Caffe 1.0"
            ours = row["times"][OURS]["median"]
            yield Goal(title, 3, 8, True, figures={2: caffe / ours}, notes={2: f"{ours:.0f} of {caffe:.0f} ms"})


def show(sections: Sections) -> str:
    """The table of goals as text, and the number of goals met."""
    found = goals_of(sections)
    table = columns(threads_of(found))
    met = [goal.met() for goal in found]
    counts = f"{met.count('aim')} aims reached, {met.count('must')} musts, {met.count('MISSED')} missed"
    without = met.count("not measured")
    lines = [head_line(table), *(line(table, {"goal": goal}) for goal in found if goal.figures)]
    return "\n".join([*lines, counts + (f", {without} not measured" if without else "")])


def threads_of(goals: list[Goal]) -> list[int]:
    return sorted({threads for goal in goals for threads in goal.figures})


def mean_ratio(rows: list[Row]) -> float:
    """The geometric mean of the values."""
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def add_options(parser: argparse.ArgumentParser, sections: list[str]) -> None:
    parser.add_argument(
        "--only", nargs="*", choices=sections, default=sections, metavar="SECTION",
        help=f"measure these, or none, and take the others from the JSON file: {', '.join(sections)}",
    )  # fmt: skip
