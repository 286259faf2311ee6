"""Table 4 and figure 1: AlexNet's convolutions with as many zeros as the paper reports, and dense. No data are needed.

Zeros are at random places; whole layers are timed, by the same code as ``tools/bench sparse``. A layer is compared with the
dense product, which computes all multiply-adds like the paper's baseline, and with the dense layer as it runs in sslnet,
by Winograd's transforms where they are faster.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import sparse
from benchmarks.arguments import positive
from benchmarks.convs import geometry_of
from benchmarks.machine import machine, use_threads
from benchmarks.turns import OURS, compare, interruptible

from paper.command import RECORD
from paper.page import show
from paper.published import ALEXNET, AlexNetLayer
from paper.record import Record
from paper.tables import short
from sslnet.errors import SslnetError
from sslnet.kernels.runtime.memory import aligned_empty
from sslnet.report.plots import check_plot
from sslnet.report.tables import Table

L1 = ("lowered", "direct")
"""Algorithms that skip single zeros, as in benchmarks.sparse."""
SSL = ("structure",)
LEVELS = {"strong": "loss of accuracy within 2 %", "weak": "no loss of accuracy"}

Figures = dict[str, Any]


# -- measuring -----------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, ways: tuple[str, ...]) -> Iterator[tuple[str, Figures]]:
    """Yields the key and the figures of each layer when they are measured."""
    here = machine()
    where = {"machine": f"{here['cpu']}, {here['vector']}", "date": date.today().isoformat()}
    use_threads(options.threads)
    for level in options.levels:
        for layer, published in ALEXNET[level].items():
            for batch in options.batches:
                for way in ways:
                    found = measure_layer(layer, published, way, batch, options)
                    yield key(level, layer, way, batch, options.threads), found | where


def key(level: str, layer: str, way: str, batch: int, threads: int) -> str:
    return f"{level} {layer} {way} batch {batch} threads {threads}"


def measure_layer(
    layer: str, published: AlexNetLayer, way: str, batch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Speedups of a layer over the dense product and the dense layer, medians of alternating runs."""
    g = geometry_of(layer.replace("conv", "alexnet"), batch)
    shares = (published.columns / 100, published.rows / 100, published.weights / 100)
    level = sparse.Level(*shares, published.speedup, published.weights_speedup)
    weights = sparse.zero_structure(g, level) if way in SSL else sparse.zero_weights(g, level.weights)
    x, y = sparse.filled(g.input_shape), aligned_empty(g.output_shape)
    contestants: dict[str, Callable[[], object]] = {}
    for other, plan in sparse.plans(g, way, weights).items():
        plan.pack(weights if other == OURS else sparse.filled(g.weight_shape), np.zeros(g.filters, np.float32))
        contestants[other] = lambda plan=plan: plan.run(x, y)
    times = compare(contestants, options.seconds, threads=options.threads, rounds=options.rounds)["times"]
    ours = times[OURS]["median"]
    return {
        "product": round(times["product"]["median"] / ours, 3),
        "dense": round(times["dense"]["median"] / ours, 3),
        "milliseconds": round(ours, 4),
        "limit": round(weights.size / float(np.count_nonzero(weights)), 3),
    }


# -- showing -------------------------------------------------------------------------------------------------------------


def table4(found: dict[str, Figures], options: argparse.Namespace) -> Table:
    """Table 4: one row for each layer, level and batch."""
    heads = ("l1: weights\nzero %", "paper", "lowered", "direct", "SSL: columns\nzero %", "rows\nzero %")
    table = Table(
        "Table 4: AlexNet's convolutions, times as fast as dense ones", "layer", "batch", *heads, "paper", "sslnet"
    )
    for level in options.levels:
        for layer, published in ALEXNET[level].items():
            for batch in options.batches:
                cells = [cell(found.get(key(level, layer, way, batch, options.threads))) for way in (*L1, *SSL)]
                table.add(
                    f"{layer} ({level})", batch,
                    short(published.weights), f"{published.weights_speedup:.2f}", *cells[:2],
                    short(published.columns), short(published.rows), f"{published.speedup:.2f}", cells[2],
                )  # fmt: skip
    for level in options.levels:
        table.note(f"{level}: the pair of the paper's nets with {LEVELS[level]}")
    notes(table, found, options)
    return table


def figure1(found: dict[str, Figures], options: argparse.Namespace) -> Table:
    """Figure 1: one row for each layer and batch, for the l1 nets of the first pair."""
    table = Table(
        "Figure 1: AlexNet's convolutions with single weights that are zero (l1), times as fast as dense ones",
        "layer", "batch", "weights\nzero %", "paper", "lowered", "direct",
    )  # fmt: skip
    for layer, published in ALEXNET["strong"].items():
        for batch in options.batches:
            cells = [cell(found.get(key("strong", layer, way, batch, options.threads))) for way in L1]
            table.add(layer, batch, short(published.weights), f"{published.weights_speedup:.2f}", *cells)
    notes(table, found, options)
    return table


def cell(figures: Figures | None) -> str | None:
    return None if figures is None else f"{figures['product']:.2f} ({figures['dense']:.2f})"


def notes(table: Table, found: dict[str, Figures], options: argparse.Namespace) -> None:
    shown = [figures for name, figures in found.items() if name.endswith(f"threads {options.threads}")]
    if not shown:
        table.note(f"nothing of ours is measured yet: {options.program} --measure")
        return
    table.note("lowered: rows of weights that are not zero times a lowered matrix; direct: times the padded image")
    table.note("ours: whole layers, times as fast as the dense product, in brackets as the dense layer as it runs here")
    table.note("paper: the matrix product alone, on its authors' CPU")
    machines = sorted({f"{figures['machine']} ({figures['date']})" for figures in shown})
    table.note(f"measured on {'; '.join(machines)}, {options.threads} thread{'s' * (options.threads > 1)}")


def plot_figure1(found: dict[str, Figures], options: argparse.Namespace) -> None:
    """Draws bars for each layer: the paper's and ours by batch; the line of the dense layer at 1."""
    from sslnet.report.plots import COLOURS, figure

    layers = ALEXNET["strong"]
    bars = {"paper, CPU": [published.weights_speedup for published in layers.values()]}
    for way in L1:
        for batch in options.batches:
            rows = [found.get(key("strong", layer, way, batch, options.threads)) for layer in layers]
            if all(row is not None for row in rows):
                bars[f"sslnet, {way}, batch {batch}"] = [row["product"] for row in rows if row is not None]
    with figure(options.plot, size=(7.2, 3.6)) as (ax,):
        width = 0.8 / len(bars)
        for i, (label, values) in enumerate(bars.items()):
            places = [j + (i - (len(bars) - 1) / 2) * width for j in range(len(values))]
            ax.bar(places, values, 0.92 * width, color=COLOURS[i % len(COLOURS)], label=label)
        ax.axhline(1, color="black", linewidth=0.8, linestyle="--")
        ax.set_xticks(range(len(layers)), [f"{name}\n{one.weights:g} % zero" for name, one in layers.items()])
        ax.set(ylabel="times as fast as dense", title="Zeros at single places")
        ax.legend(fontsize=8)


# -- command lines -------------------------------------------------------------------------------------------------------


def main(name: str, arguments: list[str] | None = None) -> int:
    """The commands ``tools/table4`` and ``tools/figure1``."""
    options = parse(name, arguments)
    try:
        if getattr(options, "plot", None):
            check_plot(options.plot)
        record = Record(options.json or RECORD)
        found = dict(record.alexnet)
        if options.measure:
            ways = L1 if name == "figure1" else (*L1, *SSL)
            with interruptible():
                for row, figures in measure(options, ways):
                    print(f"{row}: {figures['product']:.2f} ({figures['dense']:.2f})", file=sys.stderr, flush=True)
                    found[row] = figures
                    if options.json:
                        record.add("alexnet", row, figures)
        table = (table4 if name == "table4" else figure1)(found, options)
        show(table, name, options.write)
        if getattr(options, "plot", None):
            plot_figure1(found, options)
    except SslnetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted" + (f"; what was measured is in {options.json}" if options.json else ""), file=sys.stderr)
        return 130
    return 0


def parse(name: str, arguments: list[str] | None) -> argparse.Namespace:
    what = "Table 4" if name == "table4" else "Figure 1"
    parser = argparse.ArgumentParser(
        prog=f"tools/{name}",
        description=f"{what} of the SSL paper: speedups of AlexNet's layers, the paper's and ours. Without --measure those that are recorded.",
    )
    parser.add_argument("--measure", action="store_true", help="measure sslnet now")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what is measured there, beside what it has; "
        "read it from there; default: docs/paper.json is read")  # fmt: skip
    parser.add_argument("--batches", nargs="+", type=positive, default=[1, 16], metavar="N", help="default 1 16")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="default 1")
    parser.add_argument("--seconds", type=float, default=0.4, metavar="S", help="seconds for each figure; default 0.4")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="least number of rounds; default 5")
    parser.add_argument(
        "--write", type=Path, metavar="FILE.md", help="write the table into that page, between its markers"
    )
    if name == "table4":
        parser.add_argument(
            "--levels", nargs="+", choices=ALEXNET, default=list(ALEXNET), metavar="LEVEL", help=", ".join(ALEXNET)
        )
    else:
        parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the bars (.png, .pdf, .svg)")
        parser.set_defaults(levels=["strong"])
    options = parser.parse_args(arguments)
    options.program = f"tools/{name}"
    return options
