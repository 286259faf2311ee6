"""Rows as lines of text while they are measured, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.turns import OURS

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    head: str
    width: int
    cell: Callable[[Row], str]
    left: bool = False


def head_line(columns: Iterable[Column]) -> str:
    return "  ".join(_pad(column, column.head) for column in columns)


def line(columns: Iterable[Column], row: Row) -> str:
    return "  ".join(_pad(column, column.cell(row)) for column in columns).rstrip()


def markdown(columns: Iterable[Column], rows: Iterable[Row]) -> str:
    columns = list(columns)
    lines = [[column.head for column in columns], [":--" if column.left else "--:" for column in columns]]
    lines += [[column.cell(row) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _pad(column: Column, text: str) -> str:
    return text.ljust(column.width) if column.left else text.rjust(column.width)


def milliseconds(value: float | None) -> str:
    """A number with three significant digits."""
    if value is None:
        return ""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def times_of(name: str) -> Callable[[Row], str]:
    """The cell with a contestant's median."""
    return lambda row: milliseconds(row["times"].get(name, {}).get("median"))


def own_times(row: Row) -> str:
    """The median and quartiles of sslnet's times."""
    ours = row["times"][OURS]
    return f"{milliseconds(ours['median'])} ({milliseconds(ours['low'])}-{milliseconds(ours['high'])})"


def ratio(row: Row) -> str:
    """Ours by the fastest other one's, with quartiles."""
    if "ratio" not in row:
        return ""
    return f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"


def best_ratio(row: Row) -> str:
    return f"{row['ratio_best']:.2f}" if "ratio_best" in row else ""


COMMON = [
    Column("what", 22, lambda row: row["what"], left=True),
    Column("part", 26, lambda row: row["part"], left=True),
    Column("threads", 7, lambda row: str(row["threads"])),
    Column("ours ms", 20, own_times),
    Column("torch", 8, times_of("torch")),
    Column("ch.last", 8, times_of("channels_last")),
    Column("ratio", 17, ratio),
    Column("of best", 7, best_ratio),
    Column("share", 6, lambda row: f"{row['share']:.1%}" if "share" in row else ""),
]
