"""The registry of the penalties of ``group_lasso`` by their names in a prototxt, and the choice of implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sslnet.sparsity.group_lasso import GroupLasso
from sslnet.sparsity.group_mcp import GroupMCP
from sslnet.sparsity.group_penalty import GroupPenalty, Tiling
from sslnet.sparsity.penalty import Penalty
from sslnet.sparsity.penalty_sum import PenaltySum
from sslnet.sparsity.sparse_group_lasso import SparseGroupLasso
from sslnet.sparsity.tiled_group_lasso import TiledGroupLasso, tile_parts

PENALTIES: dict[str, type[GroupPenalty]] = {
    "GROUP_LASSO": GroupLasso,
    "SPARSE_GROUP_LASSO": SparseGroupLasso,
    "MCP": GroupMCP,
}


def tiled_penalty(shape: tuple[int, int], tilings: Sequence[Tiling], dtype: Any = np.float32) -> Penalty:
    """Makes the penalty on the groups of one parameter, a matrix of this shape, and on its bias if groups include it."""
    if all(tiling.penalty == "GROUP_LASSO" for tiling in tilings):
        return TiledGroupLasso(shape, tilings, dtype)
    counts = [shape[0] * shape[1] // (tiling.height * tiling.width) for tiling in tilings]
    terms = [
        PENALTIES[tiling.penalty](
            tiling.name,
            tile_parts(tiling),
            np.broadcast_to(np.float64(tiling.strength), count),
            unit=tiling.unit,
            settings=dict(tiling.settings),
        )
        for tiling, count in zip(tilings, counts)
    ]
    biases = [(count, 1) for tiling, count in zip(tilings, counts) if tiling.bias]
    return PenaltySum([shape, *biases[:1]], terms)
