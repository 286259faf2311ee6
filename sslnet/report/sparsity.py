"""The tables of a training run: remaining filters, channels, columns and blocks of each layer, and coupled groups."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sslnet.report.tables import Table
from sslnet.report.units import DASH, count, left, percent

if TYPE_CHECKING:
    from sslnet.sparsity.measure import CoupledSparsity, LayerSparsity, NonZeroBlocks

WIDTH = 100
"""Width of the lines that list coupled layers."""


def sparsity_table(layers: Sequence[LayerSparsity], title: str = "Sparsity") -> Table:
    """A row for each weight blob: its remaining parts, and what its regularisation adds to the loss.

    Blobs with one axis (biases) have no rows and columns; they count in the total alone, unless they are under a group lasso.
    Blocks and regularisation have a column where any layer has them.
    """
    heads = {
        "layer": "layer",
        "weights": "weights",
        "filters": "filters\nleft",
        "channels": "channels\nleft",
        "columns": "columns\nleft",
        "blocks": "blocks left",
        "nonzero": "non-zero\nweights",
        "parameters": "parameters\nleft",
        "flops": "FLOPs\nleft",
        "regularisation": "regulari-\nsation",
    }
    rows = [layer for layer in layers if layer.filters is not None or layer.group_lasso is not None]
    if not any(layer.blocks for layer in rows):
        del heads["blocks"]
    if not any(layer.regularisation for layer in layers):
        del heads["regularisation"]
    shown = list(heads)
    drop = ("weights", "nonzero", "channels", "parameters", "regularisation", "columns")
    table = Table(title, *heads.values(), drop=[shown.index(name) for name in drop if name in shown])
    named = [layer.layer for layer in rows]
    for layer in rows:
        name = layer.layer if named.count(layer.layer) == 1 else layer.name
        cells = {"layer": name, **_cells(layer)}
        table.add(*(cells[head] for head in shown))
    total = _total(layers)
    table.foot(*(total.get(head, "") for head in shown))
    return table


def _cells(layer: LayerSparsity) -> dict[str, str | None]:
    kinds = {"filters": layer.filters, "channels": layer.channels, "columns": layer.columns}
    return {
        "weights": " x ".join(map(str, layer.shape)),
        **{name: None if kind is None else left(kind.kept, kind.total) for name, kind in kinds.items()},
        "blocks": blocks_left(layer.blocks) or None,
        "nonzero": percent(layer.elements.fraction),
        "parameters": percent(layer.parameters.fraction),
        "flops": percent(layer.flops.fraction) if layer.flops.total else None,
        "regularisation": _value(layer.regularisation),
    }


def _total(layers: Sequence[LayerSparsity]) -> dict[str, str]:
    elements, parameters, flops = (
        (sum(kind.kept for kind in kinds), sum(kind.total for kind in kinds))
        for kinds in zip(*((layer.elements, layer.parameters, layer.flops) for layer in layers))
    ) if layers else ((0, 0),) * 3  # fmt: skip
    values = [layer.regularisation for layer in layers if layer.regularisation is not None]
    return {
        "layer": "total",
        "weights": f"{count(elements[1])} with biases",
        "nonzero": _part(*elements),
        "parameters": _part(*parameters),
        "flops": _part(*flops),
        "regularisation": _value(sum(values) if values else None) or DASH,
    }


def _part(kept: int, total: int) -> str:
    return percent(kept / total if total else None)


def _value(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def blocks_left(blocks: Sequence[NonZeroBlocks]) -> str:
    """3 of 20 (50 x 25), 91 of 1,000 (1 x 25): kept of how many tiles, and the tile."""
    return ", ".join(f"{left(kind.kept, kind.total)} ({kind.height} x {kind.width})" for kind in blocks)


def coupled_table(coupled: Sequence[CoupledSparsity], explained: bool = True) -> Table:
    """A row for each family of coupled groups, named by the layer that declares it; coupled layers below the table.

    explained  whether to list the coupled layers
    """
    table = Table("Coupled groups", "channels of", "left", "group lasso")
    for family in coupled:
        table.add(family.name, left(family.groups.kept, family.groups.total), _value(family.group_lasso))
    for family in coupled if explained else ():
        table.note(tied(family))
    return table


def tied(family: CoupledSparsity) -> str:
    """The layers whose channels are coupled, in lines of at most WIDTH characters."""
    makers = [name for name in family.makers if name != family.name]
    text = f"{family.name}: " + (f"coupled with {', '.join(makers)}" if makers else "coupled with no other layer")
    if family.readers:
        text += f"; read by {', '.join(family.readers)}"
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def sparsity_summary(layers: Sequence[LayerSparsity]) -> str:
    """One line for a log or a progress bar: `conv1 5/20  conv2 14/50  ip1 120/500` (filters left)."""
    return "  ".join(f"{x.layer} {x.filters.kept}/{x.filters.total}" for x in layers if x.filters is not None)
