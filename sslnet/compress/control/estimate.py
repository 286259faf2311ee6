"""What compaction would leave of a net as it is now: layer by layer, and as parts of what the whole net takes."""

from __future__ import annotations

from dataclasses import dataclass

from sslnet.compress.compaction.channels import NetChannels, find_channels
from sslnet.errors import RunError
from sslnet.layers.base import Layer
from sslnet.net.net import Net


@dataclass(frozen=True)
class RemainingPart:
    """What is left of one layer, 0 to 1: of its top channels, and of its weight matrix (of layers without one as of the
    channels)."""

    rows: float
    matrix: float


@dataclass(frozen=True)
class Left:
    """What compaction would leave of a net: parts of its FLOPs and of its parameters, 0 to 1."""

    flops: float
    params: float


GONE = RemainingPart(0.0, 0.0)


def parts(net: Net) -> list[RemainingPart]:
    """For each layer what stays, without the channels that nobody needs and the columns of weights that are zero.

    raises RunError for a net that would be cut in two
    """
    (view,) = find_channels([net])
    return [_part(view, i, layer) for i, layer in enumerate(net.layers)]


def left(net: Net) -> Left:
    """Of the whole net. One that would be cut in two has nothing left."""
    try:
        found = parts(net)
    except RunError:
        found = [GONE] * len(net.layers)
    return Left(*(share(costs(net, of), found) for of in ("flops", "params")))


def costs(net: Net, of: str) -> list[tuple[int, int]]:
    """For each layer what scales with its matrix, and what scales with its rows. of: "flops" or "params"."""
    if of == "flops":
        return [(layer.flops(net.bottoms[i], net.tops[i]), 0) for i, layer in enumerate(net.layers)]
    counts = [[blob.count for blob in layer.blobs] for layer in net.layers]
    return [(count[0] if count else 0, sum(count[1:])) for count in counts]


def share(costs: list[tuple[int, int]], found: list[RemainingPart]) -> float:
    """What is left of all costs, 0 to 1."""
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
