"""Draws test error against cost (FLOPs, parameters, time, layers), from files of sslnet and from other tables.

    PATH.json, PATH.csv   of sslnet path
    report.json           of sslnet compress: the baseline and the small net
    metrics.jsonl         of sslnet train: the net at the last test, its nonzero layers and parameters
    FILE.csv, FILE.json   one line, or one object of a list, per net: error (a fraction) or loss; flops, parameters,
                          forward_ms, layers

Ref: Wen et al. 2016, figure 6 (error against layers of a ResNet)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.errors import UsageError
from sslnet.files import read_text
from sslnet.json_file import fields, items, number, read_json
from sslnet.report.metrics_file import accuracy_errors, layers_left, parameters_left, read_metrics
from sslnet.report.plots import COLOURS, MARKERS, figure, plain_log_axis
from sslnet.report.units import count, digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COSTS = {
    "flops": "FLOPs per image",
    "parameters": "parameters",
    "forward_ms": "forward ms",
    "layers": "layers with weights",
}
"""Cost of a net: field of a result -> its label."""
PANEL = (3.6, 2.8)
"""Size of a panel in inches."""
SMALL: dict[str, Any] = {"fontsize": 7, "color": "#555555"}
START = "start"
"""The label of the first net of a path."""


@dataclass(frozen=True)
class Result:
    """The result of one net.

    label  text beside its point; "" for none
    score  test error as a fraction, or loss
    costs  known costs, by the names of COSTS
    best   the costs for which no other net is better; None if this was not determined
    """

    label: str
    score: float
    costs: dict[str, float]
    best: frozenset[str] | None = None


@dataclass(frozen=True)
class Results:
    """The nets of one file, in its order, and their score: "error" or "loss".

    joined    whether the nets are points of one path, and not independent of each other
    baseline  score of the reference net, if the file has one
    """

    title: str
    measure: str
    nets: list[Result]
    joined: bool = True
    baseline: float | None = None

    @property
    def shown(self) -> list[Result]:
        """All nets except an untrained first net of a path, whose score would compress the scale for the others."""
        first, *others = self.nets
        untrained = first.label == START and others and first.score > max(net.score for net in others)
        return others if untrained else self.nets


# -- reading -----------------------------------------------------------------------------------------------------------


def read_results(path: str, title: str, accuracy: str | None = None) -> Results:
    """Reads the nets of a file.

    accuracy  output of metrics.jsonl that is an accuracy; None: those with "acc" in their name
    raises UsageError for a file without nets
    """
    if path.endswith(".jsonl"):
        return _of_metrics(path, title, accuracy)
    rows, baseline = _csv_rows(path) if path.endswith(".csv") else _json_rows(path)
    measure = "error" if all(_number(row.get("error")) is not None for row in rows) else "loss"
    nets = []
    for row in rows:
        score = _number(row.get(measure))
        costs = {name: value for name in COSTS if (value := _number(row.get(name))) is not None}
        if score is not None and costs:
            nets.append(Result(_label(row), score, costs, _best(row)))
    if not nets:
        raise UsageError(
            f"{path} has no nets with error or loss and one of {', '.join(COSTS)}",
            hint="files of sslnet path, sslnet compress, sslnet train (metrics.jsonl), or a CSV with such columns",
        )
    return Results(title, measure, nets, not any(row.get("name") for row in rows), baseline)


def _of_metrics(path: str, title: str, accuracy: str | None) -> Results:
    run = read_metrics(path)
    if not run.tests or not run.displays:
        raise UsageError(f"{path}: the run has not been tested, or not displayed, yet")
    last = run.tests[-1]
    errors = accuracy_errors(last, accuracy, path)
    score = next(iter(errors.values())) if errors else last.loss
    if score is None:
        raise UsageError(f"{path}: the run has no accuracy and no test loss", hint="--accuracy NAME names the output")
    sparsity = run.displays[-1].sparsity
    costs = {"layers": float(layers_left(sparsity)), "parameters": float(parameters_left(sparsity))}
    return Results(title, "error" if errors else "loss", [Result("", score, costs)])


def _csv_rows(path: str) -> tuple[list[dict[str, Any]], float | None]:
    text = read_text(path, errors="replace", error=UsageError).removeprefix("\ufeff")
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""))), None
    except csv.Error as error:
        raise UsageError(f"cannot be read as CSV: {error}", path=path) from None


def _json_rows(path: str) -> tuple[list[dict[str, Any]], float | None]:
    """The nets of a JSON file, and the error of the reference net if the file has one."""
    content = read_json(path)
    rows, baseline = content, None
    if fields(fields(content).get("small")):
        baseline = _number(fields(content.get("baseline")).get("error"))
        rows = [{"name": name, **fields(content[name])} for name in ("baseline", "small") if name in content]
    elif isinstance(content, dict):
        rows = items(content.get("points"))
        if rows and content.get("weights"):
            baseline = _number(fields(rows[0]).get("error"))  # the trained net that the path begins with
    return [row for row in items(rows) if isinstance(row, dict)], baseline


def _number(value: Any) -> float | None:
    """The value of a number, which is text in CSV."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return number(value)


def _label(row: dict[str, Any]) -> str:
    if row.get("name"):
        return str(row["name"])
    if "factor" not in row:
        return ""
    factor = _number(row["factor"])
    return START if factor is None else digits(factor)


def _best(row: dict[str, Any]) -> frozenset[str] | None:
    """The marks of sslnet path for the best nets: an object in its JSON, columns in its CSV."""
    names = {"flops": "flops", "parameters": "parameters", "time": "forward_ms"}
    marks = fields(row.get("best")) or None
    if marks is None and "best_by_flops" in row:
        marks = {name: row.get(f"best_by_{name}") == "1" for name in names}
    return None if marks is None else frozenset(cost for name, cost in names.items() if marks.get(name))


# -- drawing -----------------------------------------------------------------------------------------------------------


def known_costs(files: Sequence[Results]) -> list[str]:
    """The costs that are known for every net of every file."""
    return [cost for cost in COSTS if all(cost in net.costs for results in files for net in results.nets)]


def plot_errors(
    files: Sequence[Results], costs: Sequence[str], file: str | Path, baseline: float | None = None
) -> None:
    """Draws a panel for each cost, with a line for each file; filled points are the best nets of their file.

    baseline  score of the reference net, a dashed line; None: that of the first file
    """
    if baseline is None:
        baseline = files[0].baseline
    scale, unit = (100, "test error (%)") if files[0].measure == "error" else (1, "test loss")
    if len(files) > 1 and all(len(results.nets) == 1 for results in files):
        files = [_together(files)]
    with figure(file, 1, len(costs), PANEL) as axes:
        for ax, cost in zip(axes, costs):
            if baseline is not None:
                ax.axhline(scale * baseline, color="#555555", linewidth=0.9, linestyle="--")
                ax.text(0.02, scale * baseline, "baseline", transform=ax.get_yaxis_transform(), va="bottom", **SMALL)
            ax.margins(x=0.15, y=0.12)
            for i, results in enumerate(files):
                _draw(ax, results, cost, scale, i, results.title if len(files) > 1 else None)
            ax.set(xlabel=COSTS[cost], ylabel=unit)
            _scale(ax, cost, [net.costs[cost] for results in files for net in results.shown])
            labels = _Labels(ax, [(net.costs[cost], scale * net.score) for results in files for net in results.shown])
            for i, results in enumerate(files):
                for net in results.shown:
                    labels.add(net.label, net.costs[cost], scale * net.score, COLOURS[i % len(COLOURS)])
            ax.grid(alpha=0.25, linewidth=0.6)
            if ax.get_legend_handles_labels()[0]:
                ax.legend(fontsize=7)


def _together(files: Sequence[Results]) -> Results:
    """Combines files of one net each; the nets are named by their files."""
    nets = [replace(results.nets[0], label=results.title) for results in files]
    return Results("", files[0].measure, nets, joined=False)


def _draw(ax: Axes, results: Results, cost: str, scale: float, i: int, name: str | None) -> None:
    """Draws the points of a file; points that others beat are open, which the legend states if it has no other text."""
    colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
    points = [(net.costs[cost], scale * net.score) for net in results.shown]
    look: dict[str, Any] = {"color": colour, "markersize": 5, "markerfacecolor": "white", "linewidth": 0.9}
    ax.plot(*zip(*points), marker, linestyle="-" if results.joined else "none", label=name, **look)
    best = [point for point, net in zip(points, results.shown) if net.best is None or cost in net.best]
    marked = any(net.best is not None for net in results.shown) and name is None
    if best:
        ax.plot(*zip(*best), marker, color=colour, markersize=5, label="best" if marked else None)


def _scale(ax: Axes, cost: str, values: Sequence[float]) -> None:
    """Sets the scale of an axis: logarithmic for values over several orders of magnitude, integers for layers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if cost in ("flops", "parameters"):
        if max(values) > 4 * min(values) > 0:
            ax.set_xscale("log")
            plain_log_axis(ax.xaxis, count)
        else:
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    elif cost == "layers":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    else:
        ax.set_xlim(left=0)


class _Labels:
    """Places texts beside points, where they cover neither other texts nor points. Lengths are in printer's points,
    approximately."""

    def __init__(self, ax: Axes, points: Sequence[tuple[float, float]]) -> None:
        self.ax = ax
        ax.autoscale_view()  # limits are computed on first use, which would be too late
        self.taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in map(self._place, points)]

    def add(self, text: str, x: float, y: float, colour: str) -> None:
        if not text:
            return
        width, height, (left, bottom) = 4.2 * len(text), 8, self._place((x, y))
        boxes = {}
        for side in (1, -1):
            for rise in (4, -12):
                start = left + 4 if side > 0 else left - 4 - width
                boxes[side, rise] = (start, bottom + rise, start + width, bottom + rise + height)
        (side, rise), box = min(boxes.items(), key=lambda item: self._cost(item[1]))
        self.taken.append(box)
        self.ax.annotate(
            text, (x, y), xytext=(4 * side, rise), textcoords="offset points",
            fontsize=7, color=colour, ha="left" if side > 0 else "right",
        )  # fmt: skip

    def _place(self, point: tuple[float, float]) -> tuple[float, float]:
        """The place of a data point."""
        x, y = self.ax.transAxes.inverted().transform(self.ax.transData.transform(point))
        return float(x) * 72 * 0.8 * PANEL[0], float(y) * 72 * 0.8 * PANEL[1]

    def _cost(self, box: tuple[float, float, float, float]) -> int:
        """Number of objects that a box covers; a box outside the panel has the highest cost."""
        covered = sum(
            box[0] < right and left < box[2] and box[1] < top and bottom < box[3]
            for left, bottom, right, top in self.taken
        )
        return covered + 10 * (box[0] < 0 or box[2] > 72 * 0.8 * PANEL[0])
