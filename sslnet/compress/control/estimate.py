"""The remaining estimate: the fraction of each layer and of a net's cost that compaction would leave now."""

from __future__ import annotations

from dataclasses import dataclass

from sslnet.compress.compaction.channels import NetChannels
from sslnet.compress.compaction.needed_channels import find_channels
from sslnet.errors import RunError
from sslnet.layers.base import Layer
from sslnet.net.net import Net


@dataclass(frozen=True)
class RemainingPart:
    """Remaining fractions of one layer, 0 to 1.

    rows    fraction of its top channels
    matrix  fraction of its weights; for a layer without weights, of its top channels
    """

    rows: float
    matrix: float


@dataclass(frozen=True)
class Remaining:
    """Fractions of a net's FLOPs and parameters that compaction would leave, 0 to 1."""

    flops: float
    params: float


NOTHING = RemainingPart(0.0, 0.0)


def remaining_parts(net: Net) -> list[RemainingPart]:
    """Remaining part of each layer without unneeded channels and zero columns of weights.

    raises RunError if the net would be disconnected
    """
    (view,) = find_channels([net])
    return [_part(view, i, layer) for i, layer in enumerate(net.layers)]


def estimate_remaining(net: Net) -> Remaining:
    """Estimates the remaining FLOPs and parameters of the whole net; 0 if it would be disconnected."""
    try:
        found = remaining_parts(net)
    except RunError:
        found = [NOTHING] * len(net.layers)
    return Remaining(*(remaining_share(costs(net, of), found) for of in ("flops", "params")))


def costs(net: Net, of: str) -> list[tuple[int, int]]:
    """Costs of each layer: the part proportional to its weights, and that to its rows.  of: "flops" or "params"."""
    if of == "flops":
        return [(layer.flops(net.bottoms[i], net.tops[i]), 0) for i, layer in enumerate(net.layers)]
    counts = [[blob.count for blob in layer.blobs] for layer in net.layers]
    return [(count[0] if count else 0, sum(count[1:])) for count in counts]


def remaining_share(costs: list[tuple[int, int]], found: list[RemainingPart]) -> float:
    """Remaining fraction of the total cost, 0 to 1."""
    total = sum(matrix + rows for matrix, rows in costs)
    kept = sum(matrix * part.matrix + rows * part.rows for (matrix, rows), part in zip(costs, found))
    return kept / max(1, total)


def _part(view: NetChannels, i: int, layer: Layer) -> RemainingPart:
    if not view.tops[i] or not view.tops[i][0].size:
        return RemainingPart(1.0, 1.0)
    kept = view.tops[i][0].needed
    rows = float(kept.mean())
    weights = layer.weights_by_channel() if layer.blobs and view.bottoms[i] else None
    if layer.HAS_WEIGHTS and getattr(layer, "group", 1) > 1 and view.bottoms[i]:
        places = view.bottoms[i][0].needed.reshape(layer.group, -1).any(axis=0)  # type: ignore[attr-defined]
        return RemainingPart(rows, rows * float(places.mean()))
    if weights is None or weights.shape[1] != len(view.bottoms[i][0].needed):
        return RemainingPart(rows, rows)
    needed = view.bottoms[i][0].needed[:, None] & (weights[kept] != 0).any(axis=0)
    return RemainingPart(rows, rows * float(needed.mean()))
