"""The table of a compaction: the size of each layer before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sslnet.report.tables import Table
from sslnet.report.units import count, factor, size

if TYPE_CHECKING:
    from sslnet.compress.compaction.compact import Compaction
    from sslnet.compress.compaction.sizes import LayerSize, Size


def compaction_table(compaction: Compaction) -> Table:
    """The table: sizes before and after, the difference between the two nets, and how constants were folded."""
    table = size_table("Compaction", compaction.layers)
    for sentence in sentences(compaction):
        table.note(sentence)
    return table


def size_table(title: str, layers: Sequence[LayerSize]) -> Table:
    """A row for each layer with parameters, before -> after; the total and how many times smaller it is."""
    table = Table(title, "layer", "filters", "channels", "parameters", "FLOPs", "blob memory", drop=[5, 2])
    for layer in layers:
        if layer.before.parameters or layer.after.parameters:
            table.add(*_row(layer))
    before, after = totals(layers)
    table.foot(
        "total",
        "",
        "",
        _change(before.parameters, after.parameters, count),
        _change(before.flops, after.flops, count),
        _change(before.bytes, after.bytes, size),
    )
    table.foot("ratio", "", "", *(_ratio(before, after, name) for name in ("parameters", "flops", "bytes")))
    return table


def totals(layers: Sequence[LayerSize]) -> tuple[Size, Size]:
    """The whole net before and after."""
    from sslnet.compress.compaction.sizes import total_size

    return (
        total_size([layer.before for layer in layers]),
        total_size([layer.after for layer in layers]),
    )


def sentences(compaction: Compaction) -> list[str]:
    """The sentences below the table."""
    difference = compaction.difference
    result = []
    if all(layer.before == layer.after for layer in compaction.layers):
        result.append("nothing to remove: no filter is zero, and every channel is read")
    images = "1 image" if compaction.batch == 1 else f"{compaction.batch} images"
    result.append(f"FLOPs and blob memory: forward pass over {images}; a multiply-add is two FLOPs")
    result.append(
        f"largest difference from the pruned net: {difference.absolute:.3g}, {difference.relative:.3g} of the largest "
        f"output (on {difference.inputs})"
    )
    places = (
        ("the biases of {} now include the constant outputs of removed filters", compaction.constants),
        (
            "after {} a Bias layer adds the outputs of removed filters, which differ between positions",
            compaction.maps,
        ),
        ("after {} a Scale layer replaces a constant factor", compaction.factors),
        ("{}: constant channels are kept to carry the outputs of removed filters", compaction.carriers),
    )
    result += [sentence.format(", ".join(names)) for sentence, names in places if names]
    return result + compaction.notes


def _row(layer: LayerSize) -> list[str]:
    before, after = layer.before, layer.after
    return [
        layer.name,
        _change(before.filters, after.filters, count),
        _change(before.channels, after.channels, count),
        _change(before.parameters, after.parameters, count),
        _change(before.flops, after.flops, count),
        _change(before.bytes, after.bytes, size),
    ]


def _change(before: int, after: int, words: Any) -> str:
    return words(before) if before == after else f"{words(before)} -> {words(after)}"


def _ratio(before: Size, after: Size, name: str) -> str:
    return factor(getattr(before, name) / getattr(after, name) if getattr(after, name) else None)
