"""The table of ``sslnet prune --dead``: how many filters and neurons of each layer emit a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sslnet.report.tables import Table
from sslnet.report.units import count

if TYPE_CHECKING:
    from sslnet.compress.pruning.dead_channels import DeadChannels, DeadPruning


def dead_table(layers: Sequence[DeadChannels]) -> Table:
    """A row for each layer with dead outputs."""
    table = Table("", "layer", "outputs", "dead", "of them\nnot 0", "kept: no bias\nfor the constant")
    for each in layers:
        nonzero = int((each.values != 0).sum())
        table.add(each.layer, count(each.channels), count(len(each.dead)), count(nonzero), count(len(each.stuck)))
    return table


def dead_record(details: DeadPruning) -> dict[str, Any]:
    """The result as plain data."""

    def listed(layers: Sequence[DeadChannels]) -> list[dict[str, Any]]:
        return [
            {"layer": each.layer, "channels": each.channels, "dead": each.dead.tolist(), "stuck": each.stuck.tolist()}
            for each in layers
        ]

    return {
        "box": {each.blob: [each.low, each.high] for each in details.inputs},
        "dead": listed(details.layers),
        "images": details.images,
        "data": details.data,
        "constant_on_images": listed(details.idle),
    }
