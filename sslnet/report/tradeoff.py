"""The output of ``sslnet path``: the table, the lines of a CSV file, and the curves."""

from __future__ import annotations

import csv
import io
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from sslnet.report.tables import Table
from sslnet.report.units import count, digits, factor, milliseconds

if TYPE_CHECKING:
    from sslnet.compress.pipeline.regularization_path import Path

COSTS = {"flops": "FLOPs per image", "parameters": "parameters", "seconds": "forward ms"}
"""The costs of a net: the field of Point, and its words."""
COLUMNS = (
    "point", "factor", "error", "loss", "flops", "parameters", "forward_ms", "speedup",
    "best_by_flops", "best_by_parameters", "best_by_time", "weights",
)  # fmt: skip


def score_text(error: float | None, loss: float | None) -> str:
    """A test error in percent, else the loss."""
    return f"{100 * error:.2f} %" if error is not None else digits(loss)


def tradeoff_table(path: Path) -> Table:
    """A row a point: factor of the strengths, error, and what the compacted net takes."""
    table = Table(
        "Path", "point", "strengths", f"test {path.measure}", "FLOPs\nper image", "parameters", "forward\nms", "speedup",
        "best",
    )  # fmt: skip
    best = {cost: path.best(cost) for cost in COSTS}
    for k, point in enumerate(path.points):
        marks = [word for cost, word in zip(COSTS, ("F", "P", "T")) if best[cost][k]]
        table.add(
            k,
            f"x {digits(point.factor)}" if point.factor is not None else "start",
            score_text(point.error, point.loss),
            count(point.flops),
            count(point.parameters),
            milliseconds(point.seconds),
            factor(point.speedup),
            "".join(marks),
        )
    table.note(
        f"best: no other point has both lower {path.measure} and fewer FLOPs (F), fewer parameters (P), less time (T)"
    )
    table.note("FLOPs, parameters and time are those of the compacted nets; speedup: over the net at the start")
    if path.ended:
        table.note(path.ended)
    return table


def tradeoff_csv(path: Path) -> str:
    """One line a point under a line of heads; what is not known is empty."""
    best = [path.best(cost) for cost in COSTS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for k, point in enumerate(path.points):
        costs = (point.flops, point.parameters, 1e3 * point.seconds, point.speedup)
        marks = [int(flags[k]) for flags in best]
        writer.writerow([k, point.factor, point.error, point.loss, *costs, *marks, point.weights])
    return text.getvalue()


def plot_tradeoff(path: Path, file: str | FilePath) -> None:
    """Error against FLOPs, parameters and time of the compacted nets; points that no other one beats are filled."""
    from sslnet.report.error_pictures import START, Result, Results, plot_errors

    best = {cost: path.best(cost) for cost in COSTS}
    nets = []
    for k, point in enumerate(path.points):
        label = START if point.factor is None else digits(point.factor)
        costs = {"flops": point.flops, "parameters": point.parameters, "forward_ms": 1e3 * point.seconds}
        marks = frozenset(name for name, cost in zip(costs, COSTS) if best[cost][k])
        nets.append(Result(label, point.score, costs, marks))
    plot_errors([Results("", path.measure, nets)], ["flops", "parameters", "forward_ms"], file)
