"""The dense loop nests of the gradient of the weights: tiles worth trying, and their estimated cycles."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from sslnet.kernels.conv.candidates import fill_cycles, sums_of
from sslnet.kernels.conv.loop_nest import WeightGradLoop
from sslnet.kernels.conv.packing import window_for
from sslnet.kernels.conv.problem import Direction, LoopCandidate
from sslnet.kernels.conv.weight_grad_filters import POSITIONS, FilterGradLoop, FilterGradTile, is_exact, overhang
from sslnet.kernels.conv.weight_grad_microkernels import edge_columns, taps_inside
from sslnet.kernels.conv.weight_grad_pixels import PixelGradLoop, PixelGradTile

NEAR_TAPS = 8
"""The number of taps of a tile whose distances fit into the integer registers."""


class FilterGradCandidate(LoopCandidate[FilterGradTile]):
    """The loop nest with filters of dy side by side in a vector and the pixels that the taps read broadcast."""

    DIRECTIONS = (Direction.WEIGHT_GRAD,)

    def suits(self) -> bool:
        return self.problem.kept is None

    def tiles(self) -> Iterator[FilterGradTile]:
        """For every number of vectors, as many lines as the registers allow, of one kernel row or of all."""
        g = self.geometry
        for vectors, rows in sums_of(self.unit, g.group_filters):
            most = rows // g.kernel_w
            if most < 1:
                break
            for by_row in (False, True):
                lines_in_all = g.group_channels * (1 if by_row else g.kernel_h)
                yield FilterGradTile(vectors, -(-lines_in_all // -(-lines_in_all // most)), by_row)

    def cycles(self, tile: FilterGradTile) -> float:
        g, unit, costs = self.geometry, self.unit, self.costs
        vectors_in_all = -(-g.group_filters // unit.lanes)
        lines_in_all = g.group_channels * (1 if tile.by_row else g.kernel_h)
        rows = self._rows_inside if tile.by_row else g.out_h
        sums = tile.vectors * tile.lines * g.kernel_w
        per_position = costs.step(sums, tile.vectors + tile.lines * g.kernel_w)
        if POSITIONS * tile.vectors * unit.bytes > costs.first_cache:
            per_position = max(per_position, tile.vectors * unit.bytes / costs.second_bytes)
        calls = -(-vectors_in_all // tile.vectors) * -(-lines_in_all // tile.lines)
        enter = (g.kernel_h if tile.by_row else 1) * (costs.call + costs.grad_sum * sums)
        cycles = calls * (rows * (self._columns * per_position + costs.grad_row) + enter)
        window = window_for(self.problem.lowering, split=False, whole_vectors=False, exact=is_exact(g, tile))
        leaving = costs.grad_pixel * vectors_in_all * g.out_h * g.out_w
        return g.groups * (fill_cycles(costs, unit, window) + leaving + cycles)

    @cached_property
    def _columns(self) -> float:
        """Output columns, less the fraction of them that is skipped next to the padding."""
        g, over = self.geometry, overhang(self.geometry)
        if over is None:
            return g.out_w
        skipped = [
            g.kernel_w - len(taps_inside(g.kernel_w, g.stride_w, g.dilation_w, side, column))
            for side in (over.left, over.right)
            for column in range(edge_columns(side, g.stride_w))
        ]
        return g.out_w - sum(skipped) / g.kernel_w

    @cached_property
    def _rows_inside(self) -> int:
        """Pairs of an output row and a kernel row that read a row inside the source."""
        g = self.geometry
        at = np.arange(g.out_h)[:, None] * g.stride_h - g.pad_h + np.arange(g.kernel_h) * g.dilation_h
        return int(((at >= 0) & (at < g.height)).sum())

    def loop(self, tile: FilterGradTile) -> WeightGradLoop:
        return FilterGradLoop(self.geometry, self.unit, tile)


class PixelGradCandidate(LoopCandidate[PixelGradTile]):
    """The loop nest with pixels side by side in a vector, both of dy and of the source."""

    DIRECTIONS = (Direction.WEIGHT_GRAD,)

    def suits(self) -> bool:
        return self.problem.kept is None

    def tiles(self) -> Iterator[PixelGradTile]:
        """For every number of filters that divides those of a group, as many taps as the registers allow."""
        g = self.geometry
        for filters in (f for f in range(1, 9) if g.group_filters % f == 0):
            most = (self.unit.registers - 1) // filters - 2
            if most < 1:
                break
            yield PixelGradTile(filters, -(-g.columns // -(-g.columns // most)))

    def cycles(self, tile: PixelGradTile) -> float:
        g, unit, costs = self.geometry, self.unit, self.costs
        sums = tile.filters * (tile.taps + 1)
        per_vector = costs.step(sums, tile.filters + tile.taps * costs.unaligned_load)
        per_vector += costs.distant_tap * max(0, tile.taps - NEAR_TAPS)
        calls = g.group_filters // tile.filters * -(-g.columns // tile.taps)
        row = -(-g.out_w // unit.lanes) * per_vector + costs.lanes_row
        cycles = calls * (g.out_h * row + costs.call + costs.lanes_sum * sums)
        return g.groups * (self._filled + cycles)

    @cached_property
    def _filled(self) -> float:
        window = window_for(self.problem.lowering, split=True, whole_vectors=False)
        return fill_cycles(self.costs, self.unit, window)

    def loop(self, tile: PixelGradTile) -> WeightGradLoop:
        return PixelGradLoop(self.geometry, self.unit, tile)
