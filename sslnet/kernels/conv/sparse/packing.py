"""Packing for the loop nests over kept filters and columns: weights, and the places of the outputs of all filters."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop
from sslnet.kernels.conv.packing import address
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.kernels.simd.vector import VectorUnit

GROUP = np.dtype(
    [
        (name, np.int64)
        for name in ("taps", "first_tap", "filters", "first_filter", "weights", "dropped", "first_dropped")
    ]
)
"""The numbers of a group: its taps, kept filters and dropped filters, the first index of each (blocks of kept filters
padded), and the start of its weights."""


class KeptLoop(PackedLoop):
    """A loop nest of y = x * w + b over the kept filters and columns, then ReLU if planned with it.

    Weights are packed per group and block of ``width`` filters as (taps, filters of the block); padding filters are
    zero.

    columns   one array a group: its kept columns, in the order of the taps
    """

    def __init__(
        self,
        geometry: ConvGeometry,
        kept: SparsityPattern,
        columns: tuple[np.ndarray, ...],
        width: int,
        unit: VectorUnit,
    ) -> None:
        g = self.geometry = geometry
        self.kept = kept
        self.width = width
        pixels = 4 * g.out_h * g.out_w
        groups = self.groups = np.zeros(g.groups, GROUP)
        order, dropped = [], []
        tap = filter_ = weight = drop = 0
        for group, (f, c) in enumerate(zip(kept.filters, columns, strict=True)):
            padded = -(-len(f) // width) * width
            without = np.setdiff1d(np.arange(g.group_filters), f)
            groups[group] = (len(c), tap, len(f), filter_, weight, len(without), drop)
            order.append(np.pad(f + group * g.group_filters, (0, padded - len(f)), constant_values=-1))
            dropped.append(without + group * g.group_filters)
            tap, filter_, weight, drop = tap + len(c), filter_ + padded, weight + padded * len(c), drop + len(without)
        self.order, self.columns, self.dropped = (np.concatenate(v).astype(np.int64) for v in (order, columns, dropped))
        self.targets, self.dropped_targets = np.maximum(self.order, 0) * pixels, self.dropped * pixels
        self.values = aligned_zeros(weight + unit.lanes)
        self.bias = aligned_zeros(len(self.order) + unit.lanes)
        self.dropped_bias = aligned_zeros(drop + unit.lanes)
        self.multiply_adds = g.batch * g.out_h * g.out_w * kept.weights

    def _places(self) -> dict[str, int]:
        """The addresses of the tables, for the record of kernel parameters."""
        return {
            "values": address(self.values),
            "bias": address(self.bias),
            "targets": address(self.targets),
            "dropped_bias": address(self.dropped_bias),
            "dropped": address(self.dropped_targets),
        }

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        pack_kept(
            weights.reshape(len(weights), -1), self.groups, self.columns, self.order, self.width, self.values, False
        )
        if bias is None:
            self.bias[:] = 0
            self.dropped_bias[:] = 0
            return
        there = self.order >= 0
        self.bias[: len(there)][there] = bias[self.order[there]]
        self.dropped_bias[: len(self.dropped)] = bias[self.dropped]


@exact_kernel
def pack_kept(weights, groups, columns, order, width, packed, transposed):
    """packed[group][block][tap][filter] = weights[order[filter], columns[tap]], 0 for padding filters (-1).

    transposed   blocks of columns instead: packed[group][block of columns][filter][column]
    """
    for g in range(groups.size):
        one = groups[g]
        at = one.weights
        if transposed:
            for k in range(0, one.filters, width):
                for f in range(one.taps):
                    line = weights[order[one.first_tap + f]]
                    for i in range(width):
                        column = columns[one.first_filter + k + i]
                        packed[at + i] = line[column] if column >= 0 else 0
                    at += width
        else:
            for f in range(0, one.filters, width):
                for k in range(one.taps):
                    column = columns[one.first_tap + k]
                    for i in range(width):
                        row = order[one.first_filter + f + i]
                        packed[at + i] = weights[row, column] if row >= 0 else 0
                    at += width
