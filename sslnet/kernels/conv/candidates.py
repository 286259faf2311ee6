"""The dense loop nests of the forward pass and the gradient of the input: tiles worth trying, and their estimated cycles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from sslnet.kernels.conv.cost import UnitCosts
from sslnet.kernels.conv.filters_loop import FilterLoop, FilterTile, line_limits, runs_exactly
from sslnet.kernels.conv.loop_nest import PackedLoop
from sslnet.kernels.conv.microkernels import line_pixels, meetings_of
from sslnet.kernels.conv.packing import SourceWindow, window_for
from sslnet.kernels.conv.pixels_loop import PixelLoop, PixelTile
from sslnet.kernels.conv.problem import Direction, LoopCandidate
from sslnet.kernels.conv.taps import Pass, TapGeometry
from sslnet.kernels.simd.vector import VectorUnit

MOST_VECTORS = 8
"""The most vectors side by side in a tile; with more, the registers hold too few rows."""


class FilterCandidate(LoopCandidate[FilterTile]):
    """The loop nest with filters side by side in a vector and pixels broadcast."""

    DIRECTIONS = (Direction.FORWARD, Direction.INPUT_GRAD)

    def suits(self) -> bool:
        return self.problem.kept is None

    def tiles(self) -> Iterator[FilterTile]:
        """For every number of vectors, as many pixels as the registers allow, spread evenly over the row; a tile covers
        several rows where rows are short."""
        low, unit = self.problem.lowering, self.unit
        out_h, out_w = (min(getattr(p, axis) for p in low.passes) for axis in ("out_h", "out_w"))
        line = max((p.line[1] for p in low.passes if p.line), default=0)
        for vectors, most in sums_of(unit, low.filters):
            even = {-(-out_w // -(-out_w // limit)) for limit in (most, line_pixels(unit, vectors, line)) if limit > 0}
            for pixels in sorted(even):
                rows = min(most // pixels, out_h) if len(low.passes) == 1 else 1
                yield from (FilterTile(vectors, r, pixels) for r in sorted({1, max(rows, 1)}))

    def cycles(self, tile: FilterTile) -> float:
        low, unit, costs = self.problem.lowering, self.unit, self.costs
        vectors_in_all = -(-low.filters // unit.lanes)
        blocks = [tile.vectors] * (vectors_in_all // tile.vectors) + [vectors_in_all % tile.vectors]
        pixels = tile.rows * tile.pixels
        squares = tile.rows * -(-tile.pixels // unit.lanes)
        exact = runs_exactly(low, unit, tile)
        window = self._window(tile, exact)
        cycles = 0.0
        for p, inside in zip(low.passes, self._inside, strict=True):
            taps = inside * p.taps
            columns = [min(c, p.out_w - tile.pixels) for c in range(0, p.out_w, tile.pixels)]
            block = self._tap_block(tile, window, p.taps) or p.taps
            for vectors, count in Counter(blocks).items():
                leaving = costs.sum_out * vectors * pixels + costs.transposed_row * vectors * squares * unit.lanes
                far_block = block * vectors * unit.bytes > costs.first_cache
                read = vectors * unit.bytes / costs.second_bytes if far_block else 0
                between = (-(-p.taps // block) - 1 if block else 0) * (costs.call + costs.sum_stored * vectors * pixels)
                if exact and p.line is not None:
                    lines = [self._line_cycles(p, vectors, tile.pixels, column) for column in columns]
                    per_taps = [max(line / p.line[1], read) for line in lines]
                else:
                    per_taps = [max(costs.step(vectors * pixels, vectors + pixels + 1), read)] * len(columns)
                row = sum(taps * per_tap + costs.call + leaving + between for per_tap in per_taps)
                cycles += count * (vectors > 0) * -(-p.out_h // tile.rows) * row
        weights = low.groups * vectors_in_all * unit.bytes * sum(p.taps for p in low.passes)
        far = costs.weights(weights, -(-low.rows // window.chunk) * low.batch, low.batch)
        moved = fill_cycles(costs, unit, window) + combine_cycles(costs, low)
        return low.groups * (cycles + moved) + far

    @cached_property
    def _inside(self) -> list[float]:
        """For each output phase, the fraction of the taps whose source row is not padding, over all output rows."""
        low, found = self.problem.lowering, []
        for p in low.passes:
            rows = np.arange(p.out_h)[:, None] * low.stride_h + p.rows[0]
            found.append(((rows >= 0) & (rows < low.height)).mean() if p.taps else 0)
        return found

    def _line_cycles(self, taps: Pass, vectors: int, pixels: int, column: int) -> float:
        """Cycles of a line_tile for one line of taps."""
        if not vectors or taps.line is None:
            return 0
        _, count, spacing = taps.line
        low = self.problem.lowering
        inside = line_limits(low, taps, pixels, column)
        meetings = meetings_of(pixels, low.stride_w, count, spacing, *inside)
        products = sum(len(met) for _, met in meetings)
        loads = 1 + count * vectors + len(meetings)
        return max(vectors * products / 2, loads / 2, self.costs.latency * count)

    def loop(self, tile: FilterTile) -> PackedLoop:
        low = self.problem.lowering
        window = self._window(tile, runs_exactly(low, self.unit, tile))
        tap_block = self._tap_block(tile, window, max(p.taps for p in low.passes))
        return FilterLoop(low, self.unit, tile, relu=self.problem.relu, tap_block=tap_block)

    def _tap_block(self, tile: FilterTile, window: SourceWindow, taps: int) -> int:
        """KC blocking: taps of a block of weights, all blocks about equally large; 0 if the taps are not divided: they
        are few, or the sums that wait for the next block are many."""
        width = tile.vectors * self.unit.bytes
        most = self.costs.weight_block // width
        if taps <= 2 * most:
            return 0
        waiting = window.chunk * max(p.out_w for p in self.problem.lowering.passes) * width
        return 0 if waiting > 2 * self.costs.first_cache else -(-taps // -(-taps // most))

    def _window(self, tile: FilterTile, exact: bool) -> SourceWindow:
        low = self.problem.lowering
        return window_for(low, split=False, whole_vectors=False, exact=exact, granularity=tile.rows)


class PixelCandidate(LoopCandidate[PixelTile]):
    """The loop nest with pixels side by side in a vector and weights broadcast."""

    DIRECTIONS = (Direction.FORWARD, Direction.INPUT_GRAD)

    def suits(self) -> bool:
        return self.problem.kept is None

    def tiles(self) -> Iterator[PixelTile]:
        """For every number of vectors, as many filters as the registers allow, spread evenly over the filters."""
        low = self.problem.lowering
        pixels = low.rows * -(-low.out_w // self.unit.lanes) * self.unit.lanes
        for vectors, most in sums_of(self.unit, pixels):
            yield PixelTile(-(-low.filters // -(-low.filters // most)), vectors)

    def cycles(self, tile: PixelTile) -> float:
        low, unit, costs = self.problem.lowering, self.unit, self.costs
        sums = tile.filters * tile.vectors
        per_tap = costs.step(sums, tile.filters + 1 + tile.vectors * costs.unaligned_load)
        cycles = 0.0
        for p in low.passes:
            vectors = p.out_h * -(-p.out_w // unit.lanes)
            tiles = -(-vectors // tile.vectors) * -(-low.filters // tile.filters)
            cycles += tiles * (p.taps * per_tap + costs.call + costs.sum_out * sums) + costs.place * vectors
        weights = 4 * low.groups * low.filters * sum(p.taps for p in low.passes)
        far = costs.weights(weights, -(-low.rows // self._window.chunk) * low.batch, low.batch)
        moved = fill_cycles(costs, unit, self._window) + combine_cycles(costs, low)
        return low.groups * (cycles + moved) + far

    @cached_property
    def _window(self) -> SourceWindow:
        low, unit = self.problem.lowering, self.unit
        partial = any(p.out_w % unit.lanes for p in low.passes)
        return window_for(low, split=True, whole_vectors=partial)

    def loop(self, tile: PixelTile) -> PackedLoop:
        return PixelLoop(self.problem.lowering, self.unit, tile, relu=self.problem.relu)


def sums_of(unit: VectorUnit, count: int) -> Iterator[tuple[int, int]]:
    """Tiles (vectors, rows) of sums for ``count`` numbers side by side: the registers hold the sums, one factor for
    each vector and one factor more."""
    for vectors in range(1, min(-(-count // unit.lanes), MOST_VECTORS) + 1):
        rows = (unit.registers - 1) // vectors - 1
        if rows < 1:
            break
        yield vectors, rows


def fill_cycles(costs: UnitCosts, unit: VectorUnit, window: SourceWindow) -> float:
    """Cycles to copy the source rows of one group of an image into the window."""
    if window.in_place:
        return 0
    low = window.lowering
    rows = window.step_h * window.step_w * window.plane_rows * -(-low.rows // window.chunk)
    vector = {1: costs.fill_vector, 2: costs.fill_pairs}.get(window.step_w, costs.strided_vector)
    return low.channels * rows * (costs.fill_row + vector * -(-window.plane_columns // unit.lanes))


def combine_cycles(costs: UnitCosts, low: TapGeometry) -> float:
    """Cycles to interleave the output phases of one group of an image."""
    rows = low.filters * low.out_h if len(low.passes) > 1 else 0
    return rows * (costs.combine_row + low.out_w / costs.combine_pixels)
