"""The table of a low-rank net, with the choice for each layer, and the curves of error against FLOPs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sslnet.report.tables import Table
from sslnet.report.units import count, factor

if TYPE_CHECKING:
    from sslnet.compress.compaction.sizes import Size
    from sslnet.compress.low_rank.low_rank import LowRank


def low_rank_table(result: LowRank) -> Table:
    """A row for each layer that has factors: method, ranks of how many, error of the weights, what it takes."""
    table = Table("Low rank", "layer", "method", "rank", "error", "parameters", "FLOPs per image")
    for layer in result.layers:
        chosen = layer.chosen
        table.add(
            layer.name,
            layer.method or "as it is",
            "-".join(map(str, chosen.rank)) if chosen else "",
            f"{chosen.error:.3f}" if chosen else "",
            *(
                f"{count(before)} -> {count(after)}" if before != after else count(before)
                for before, after in (layer.parameters, layer.flops)
            ),
        )
    sums = [[getattr(size, name) for size in sides] for sides, name in _totals(result)]
    table.foot("whole net", "", "", "", *(f"{count(before)} -> {count(after)}" for before, after in sums))
    table.foot("ratio", "", "", "", *(factor(before / after) for before, after in sums))
    table.note(
        "error: norm of the change of the weights, relative to their norm; FLOPs of the whole net: for its batch"
    )
    table.note(
        f"largest difference from the net: {result.difference.relative:.3g} of the largest output "
        f"(on {result.difference.inputs}): fine-tune it"
    )
    if result.speedup is not None:
        table.note(f"measured: {result.speedup}")
    for note in result.notes:
        table.note(note)
    return table


def _totals(result: LowRank) -> list[tuple[tuple[Size, Size], str]]:
    from sslnet.report.compaction import totals

    sizes = totals(result.sizes)
    return [(sizes, "parameters"), (sizes, "flops")]


def plot_ranks(result: LowRank, path: str | Path) -> None:
    """Error of each layer's weights against the part of its FLOPs that is left, a line a method, the choice marked."""
    from sslnet.report.plots import figure

    layers = [layer for layer in result.layers if layer.factors]
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    with figure(path, rows, columns) as axes:
        for ax, layer in zip(axes, layers):
            for factors in layer.factors:
                ax.plot(
                    [candidate.flops / layer.flops[0] for candidate in factors.candidates],
                    [candidate.error for candidate in factors.candidates],
                    label=factors.METHOD,
                )
            if layer.chosen is not None:
                ax.plot(layer.chosen.flops / layer.flops[0], layer.chosen.error, "o", color="black")
            ax.axvline(1, color="grey", linewidth=0.5)
            ax.set(title=layer.name, xlabel="FLOPs left", ylabel="error of the weights", xlim=(0, 1.2), ylim=(0, 1))
            ax.legend()
