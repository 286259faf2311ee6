"""The remaining estimate: what compaction would leave of a net as it is now, of each layer and of the whole net's cost."""

from __future__ import annotations

from dataclasses import dataclass

from sslnet.compress.compaction.channels import NetChannels
from sslnet.compress.compaction.needed_channels import find_channels
from sslnet.errors import RunError
from sslnet.layers.base import Layer
from sslnet.net.net import Net


@dataclass(frozen=True)
class RemainingPart:
    """What remains of one layer, 0 to 1.

    rows    of its top channels
    matrix  of its weights; of a layer without any, of its top channels
    """

    rows: float
    matrix: float


@dataclass(frozen=True)
class Remaining:
    """What compaction would leave of a net: the parts of its FLOPs and of its parameters, 0 to 1."""

    flops: float
    params: float


NOTHING = RemainingPart(0.0, 0.0)


def remaining_parts(net: Net) -> list[RemainingPart]:
    """For each layer what remains without the channels that no layer needs and the columns of weights that are zero.

    raises RunError for a net that would be cut in two
    """
    (view,) = find_channels([net])
    return [_part(view, i, layer) for i, layer in enumerate(net.layers)]


def estimate_remaining(net: Net) -> Remaining:
    """What remains of the whole net: nothing of one that would be cut in two."""
    try:
        found = remaining_parts(net)
    except RunError:
        found = [NOTHING] * len(net.layers)
    return Remaining(*(remaining_share(costs(net, of), found) for of in ("flops", "params")))


def costs(net: Net, of: str) -> list[tuple[int, int]]:
    """For each layer the cost that scales with its matrix, and that which scales with its rows.  of: "flops" or "params"."""
    if of == "flops":
        return [(layer.flops(net.bottoms[i], net.tops[i]), 0) for i, layer in enumerate(net.layers)]
    counts = [[blob.count for blob in layer.blobs] for layer in net.layers]
    return [(count[0] if count else 0, sum(count[1:])) for count in counts]


def remaining_share(costs: list[tuple[int, int]], found: list[RemainingPart]) -> float:
    """The part of all costs that remains, 0 to 1."""
    total = sum(matrix + rows for matrix, rows in costs)
    kept = sum(matrix * part.matrix + rows * part.rows for (matrix, rows), part in zip(costs, found))
    return kept / max(1, total)


def _part(view: NetChannels, i: int, layer: Layer) -> RemainingPart:
    if not view.tops[i] or not view.tops[i][0].size:
        return RemainingPart(1.0, 1.0)
    kept = view.tops[i][0].needed
    rows = float(kept.mean())
    weights = layer.weights_by_channel() if layer.blobs and view.bottoms[i] else None
    if weights is None or weights.shape[1] != len(view.bottoms[i][0].needed):
        return RemainingPart(rows, rows)
    needed = view.bottoms[i][0].needed[:, None] & (weights[kept] != 0).any(axis=0)
    return RemainingPart(rows, rows * float(needed.mean()))
