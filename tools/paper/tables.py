"""The tables: two lines per row, the paper's and ours, with the paper's figures, and our total cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from paper.published import TABLES, Published, PublishedTable
from paper.recipes import RECIPES, ROWS
from sslnet.report.tables import Table
from sslnet.report.units import count

Figures = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """Figures layer by layer: the heading, the key of the published ones, ours, the format of a number."""

    head: str
    key: str
    ours: Callable[[Figures, Iterable[str]], list[float] | None]
    word: Callable[[float], str]


def _kept(what: str) -> Callable[[Figures, Iterable[str]], list[float] | None]:
    return lambda figures, layers: [figures["layers"][layer][what][0] for layer in layers]


def _zero(what: str) -> Callable[[Figures, Iterable[str]], list[float] | None]:
    def share(figures: Figures, layers: Iterable[str]) -> list[float]:
        parts = [figures["layers"][layer][what] for layer in layers]
        return [100 * (1 - kept / total) for kept, total in parts]

    return share


def _flops(figures: Figures, layers: Iterable[str]) -> list[float] | None:
    return [100 * figures["layers"][layer]["flops"] for layer in layers]


def _neurons(figures: Figures, layers: Iterable[str]) -> list[float] | None:
    """The pixels that the first layer reads, then the neurons of each layer."""
    names = list(layers)
    return [figures["layers"][names[0]]["columns"][0], *(figures["layers"][name]["filters"][0] for name in names)]


def _speedup(figures: Figures, layers: Iterable[str]) -> list[float] | None:
    known = figures.get("speedup")
    return None if known is None else [known[layer] for layer in layers]


def short(value: float) -> str:
    """A number with at most three significant digits: 100, 25, 7.6, 0.41."""
    text = f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


COLUMNS = {
    "filters": Column("filters", "filters", _kept("filters"), short),
    "columns": Column("filter size", "columns", _kept("columns"), short),
    "channels": Column("channels", "channels", _kept("channels"), short),
    "rows_zero": Column("rows zero %", "rows_zero", _zero("filters"), short),
    "columns_zero": Column("columns zero %", "columns_zero", _zero("columns"), short),
    "neurons": Column("neurons", "neurons", _neurons, short),
    "flops": Column("FLOPs %", "flops", _flops, short),
    "speedup": Column("speedup", "speedup", _speedup, lambda value: f"{value:.2f}"),
}


def trained_table(name: str, nets: dict[str, Figures]) -> Table:
    """A table of trained nets, "table1" to "table3" or "figure4", with the figures by recipe."""
    published = TABLES[name]
    columns = [column for key, column in COLUMNS.items() if any(key in row.figures for row in published.rows)]
    heads = [f"{column.head}\n{_order(column, published)}" for column in columns]
    extra = ("whole net\nfaster", "parameters\nnot zero")
    table = Table(published.title, "net", "", "test\nerror", *heads, *extra, left=(0, 1), drop=[len(heads) + 4])
    for row, recipe in zip(published.rows, ROWS[name], strict=True):
        table.add(
            row.name, "paper", f"{row.error:.{2 if name == 'figure4' else 1}f} %", *_paper(row, columns), None, None
        )
        figures = nets.get(recipe)
        if figures is None:
            table.add("", "sslnet", *[None] * (len(columns) + 3))
            continue
        dense = not RECIPES[recipe].baseline
        cells = [_ours(column, figures, published.layers, dense) for column in columns]
        faster = figures.get("speedup", {}).get("net")
        whole = None if faster is None else f"{faster:.2f}"
        table.add("", "sslnet", f"{100 * figures['error']:.2f} %", *cells, whole, count(figures["nonzero"]))
    _notes(table, name, nets)
    return table


def _order(column: Column, published: PublishedTable) -> str:
    layers = [*published.layers]
    return "pixels - " * (column.key == "neurons") + " - ".join(layers)


def _paper(row: Published, columns: list[Column]) -> list[str | None]:
    return [_joined(row.figures[column.key], column) if column.key in row.figures else None for column in columns]


def _ours(column: Column, figures: Figures, layers: tuple[str, ...], dense: bool) -> str | None:
    if column.key == "speedup" and dense:
        return _joined([1.0] * len(layers), column)
    found = column.ours(figures, layers)
    return None if found is None else _joined(found, column)


def _joined(values: Iterable[float], column: Column) -> str:
    return " - ".join(map(column.word, values))


def _notes(table: Table, name: str, nets: dict[str, Figures]) -> None:
    known = [nets[recipe] for recipe in ROWS[name] if recipe in nets]
    if not known:
        table.note(f"nothing of ours is measured yet: tools/{name} --work DIR")
        return
    table.note("FLOPs: rows times columns that are left, of the dense layer's")
    timed = [figures for figures in known if "speedup" in figures]
    if timed:
        threads = timed[-1]["threads"]
        table.note(
            f"speedup: forward, whole layers, of the dense net of the same engine; batch {timed[-1]['batch']}, "
            f"{threads} thread{'s' * (threads > 1)}, medians; the paper's are of the matrix product"
        )
    machines = sorted({f"{figures['machine']} ({figures['date']})" for figures in known})
    table.note(f"measured on {'; '.join(machines)}")


def markdown(table: Table) -> str:
    """The table as Markdown for a page, with its notes as one paragraph."""
    heads = [head.replace("\n", " ") for head in table.heads]
    marks = [":--" if i in table.left else "--:" for i in range(len(heads))]
    lines = [heads, marks, *table.rows, *table.feet]
    notes = " ".join(f"{note[0].upper()}{note[1:]}." for note in table.notes)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + f"\n{notes}\n"
