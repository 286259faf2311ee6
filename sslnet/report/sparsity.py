"""The table of named layers at the end of a training run: what of each layer's filters, channels, columns is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sslnet.report.tables import Table
from sslnet.report.units import count, left, percent

if TYPE_CHECKING:
    from sslnet.sparsity import LayerSparsity


def sparsity_table(layers: Sequence[LayerSparsity], title: str = "Sparsity") -> Table:
    """A row for each weight blob of ``sslnet.sparsity.measure``: filters, channels, columns, parameters, FLOPs left.

    Blobs with one axis (biases) have no rows and columns; they count in the total alone.
    """
    heads = ("layer", "weights", "filters left", "channels left", "columns left", "non-zero", "FLOPs left")
    table = Table(title, *heads, drop=[1, 5, 3])
    named = [layer.layer for layer in layers if layer.filters is not None]
    for layer in layers:
        if layer.filters is None or layer.channels is None or layer.columns is None:
            continue
        table.add(
            layer.layer if named.count(layer.layer) == 1 else layer.name,
            " x ".join(map(str, layer.shape)),
            left(layer.filters.kept, layer.filters.total),
            left(layer.channels.kept, layer.channels.total),
            left(layer.columns.kept, layer.columns.total),
            percent(layer.elements.fraction),
            percent(layer.flops.fraction) if layer.flops.total else None,
        )
    kept, total = sum(x.elements.kept for x in layers), sum(x.elements.total for x in layers)
    flops, all_flops = sum(x.flops.kept for x in layers), sum(x.flops.total for x in layers)
    table.foot(
        "total",
        f"{count(total)} with biases",
        "",
        "",
        "",
        percent(kept / total if total else None),
        percent(flops / all_flops if all_flops else None),
    )
    return table


def sparsity_summary(layers: Sequence[LayerSparsity]) -> str:
    """One line for a log or a progress bar: `conv1 5/20  conv2 14/50  ip1 120/500` (filters left)."""
    return "  ".join(f"{x.layer} {x.filters.kept}/{x.filters.total}" for x in layers if x.filters is not None)
