"""Which engine and tile a convolution gets: the candidate with the fewest estimated cycles, so the same one every time.

The estimate counts, for a machine with two multiply-adds and two loads a cycle, what the tiles take (with the pixels and
filters that only fill them up) and what it costs to bring pixels in and sums out. It need only rank candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from sslnet.kernels.conv.cost import CALL, FIRST_CACHE, LATENCY, SECOND_BYTES, weights_cost
from sslnet.kernels.conv.filters_loop import FilterEngine, FilterTile, line_limits, runs_exactly
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.microkernels import line_pixels, meetings_of
from sslnet.kernels.conv.packing import SourceWindow, window_for
from sslnet.kernels.conv.pixels_loop import PixelEngine, PixelTile
from sslnet.kernels.conv.taps import Pass, TapGeometry, lower_forward, lower_input_grad
from sslnet.kernels.conv.weight_grad_filters import POSITIONS, WeightGradEngine, WeightGradTile, is_exact, overhang
from sslnet.kernels.conv.weight_grad_microkernels import edge_columns, taps_inside
from sslnet.kernels.conv.weight_grad_pixels import PixelGradEngine, PixelGradTile
from sslnet.kernels.conv.winograd.choose import allowed, winograd_grad_tiles, winograd_tiles
from sslnet.kernels.conv.winograd.loop import WinogradEngine, WinogradTile
from sslnet.kernels.conv.winograd.weight_grad import WinogradGradEngine, WinogradGradTile
from sslnet.kernels.simd.vector import VectorUnit

WEIGHT_BLOCK_BYTES = 256 * 1024
"""A block of weights beyond this is cut along the taps, to stay in the second-level cache."""

Engine = FilterEngine | PixelEngine


def choose_forward(g: ConvGeometry, unit: VectorUnit, relu: bool, winograd: bool) -> Engine | WinogradEngine:
    """The engine for the forward pass."""
    lowering = lower_forward(g)
    candidates: list[tuple[float, Any]] = [*costed_tiles(lowering, unit)]
    if winograd and allowed():
        candidates += winograd_tiles(g, unit, backward=False)
    tile = _cheapest(candidates)
    if isinstance(tile, WinogradTile):
        return WinogradEngine(g, unit, tile, relu=relu)
    return engine_of(lowering, unit, tile, relu=relu)


def choose_input_grad(
    g: ConvGeometry, unit: VectorUnit, winograd: bool, *, relu: bool = False, lasting: bool = True
) -> Engine | WinogradEngine:
    """The engine for the gradient of the input."""
    lowering = lower_input_grad(g)
    candidates: list[tuple[float, Any]] = [*costed_tiles(lowering, unit)]
    if winograd and allowed():
        candidates += winograd_tiles(g, unit, backward=True)
    tile = _cheapest(candidates)
    if isinstance(tile, WinogradTile):
        return WinogradEngine(g, unit, tile, relu=relu, backward=True, lasting=lasting)
    return engine_of(lowering, unit, tile, relu=relu)


def _cheapest(candidates: list[tuple[float, Any]]) -> Any:
    return min(candidates, key=lambda candidate: candidate[0])[1]


def engine_of(lowering: TapGeometry, unit: VectorUnit, tile: FilterTile | PixelTile, *, relu: bool = False) -> Engine:
    """The engine that runs this tile."""
    if isinstance(tile, PixelTile):
        return PixelEngine(lowering, unit, tile, relu=relu)
    taps = max(p.taps for p in lowering.passes)
    tap_block = WEIGHT_BLOCK_BYTES // (tile.vectors * unit.bytes)
    return FilterEngine(lowering, unit, tile, relu=relu, tap_block=0 if taps <= 2 * tap_block else tap_block)


def costed_tiles(lowering: TapGeometry, unit: VectorUnit) -> Iterator[tuple[float, FilterTile | PixelTile]]:
    """Every candidate with its estimated cycles for one image."""
    yield from ((_filter_cost(lowering, unit, tile), tile) for tile in filter_tiles(lowering, unit))
    yield from ((_pixel_cost(lowering, unit, tile), tile) for tile in pixel_tiles(lowering, unit))


def filter_tiles(lowering: TapGeometry, unit: VectorUnit) -> Iterator[FilterTile]:
    """As many pixels as registers allow for every number of vectors, evenly over the row; rows together where it is short."""
    vectors_in_all = -(-lowering.filters // unit.lanes)
    out_h, out_w = (min(getattr(p, axis) for p in lowering.passes) for axis in ("out_h", "out_w"))
    line = max((p.line[1] for p in lowering.passes if p.line), default=0)
    for vectors in range(1, min(vectors_in_all, 8) + 1):
        most = (unit.registers - 1) // vectors - 1
        if most < 1:
            break
        even = {-(-out_w // -(-out_w // limit)) for limit in (most, line_pixels(unit, vectors, line)) if limit > 0}
        for pixels in sorted(even):
            rows = min(most // pixels, out_h) if len(lowering.passes) == 1 else 1
            yield from (FilterTile(vectors, r, pixels) for r in sorted({1, max(rows, 1)}))


def pixel_tiles(lowering: TapGeometry, unit: VectorUnit) -> Iterator[PixelTile]:
    """As many filters as registers allow for every number of vectors, evenly over the filters."""
    vectors_in_all = lowering.rows * -(-lowering.out_w // unit.lanes)
    for vectors in range(1, min(vectors_in_all, 8) + 1):
        most = (unit.registers - 1) // vectors - 1
        if most < 1:
            break
        yield PixelTile(-(-lowering.filters // -(-lowering.filters // most)), vectors)


def choose_weight_grad(
    g: ConvGeometry, unit: VectorUnit, winograd: bool
) -> WeightGradEngine | PixelGradEngine | WinogradGradEngine:
    """The engine for the gradient of the weights."""
    candidates: list[tuple[float, Any]] = [*costed_grad_tiles(g, unit)]
    if winograd and allowed():
        candidates += winograd_grad_tiles(g, unit)
    tile = _cheapest(candidates)
    return WinogradGradEngine(g, unit, tile) if isinstance(tile, WinogradGradTile) else grad_engine_of(g, unit, tile)


def grad_engine_of(
    geometry: ConvGeometry, unit: VectorUnit, tile: WeightGradTile | PixelGradTile
) -> WeightGradEngine | PixelGradEngine:
    """The engine that runs this tile."""
    engine: type[Any] = PixelGradEngine if isinstance(tile, PixelGradTile) else WeightGradEngine
    return engine(geometry, unit, tile)


def costed_grad_tiles(
    geometry: ConvGeometry, unit: VectorUnit
) -> Iterator[tuple[float, WeightGradTile | PixelGradTile]]:
    """Every candidate with its estimated cycles for one image."""
    g, low = geometry, lower_forward(geometry)
    vectors_in_all = -(-g.group_filters // unit.lanes)
    for vectors in range(1, min(vectors_in_all, 8) + 1):
        most = ((unit.registers - 1) // vectors - 1) // g.kernel_w
        if most < 1:
            break
        for by_row in (False, True):
            lines_in_all = g.group_channels * (1 if by_row else g.kernel_h)
            tile = WeightGradTile(vectors, -(-lines_in_all // -(-lines_in_all // most)), by_row)
            yield _weight_grad_cost(g, low, unit, tile), tile
    window = window_for(low, split=True, whole_vectors=False)
    for filters in (f for f in range(1, 9) if g.group_filters % f == 0):
        most = (unit.registers - 1) // filters - 2
        if most < 1:
            break
        taps = -(-g.columns // -(-g.columns // most))
        sums = filters * (taps + 1)
        # Beyond eight the taps' distances no longer fit into the integer registers.
        per_vector = max(sums / 2, (filters + taps * (1 + unit.bytes / 64)) / 2, LATENCY) + 3 * max(0, taps - 8)
        calls = g.group_filters // filters * -(-g.columns // taps)
        cycles = calls * (g.out_h * (-(-g.out_w // unit.lanes) * per_vector + 5) + CALL + 5 * sums)
        yield g.groups * (_fill_cost(low, unit, window) + cycles), PixelGradTile(filters, taps)


def _filter_cost(low: TapGeometry, unit: VectorUnit, tile: FilterTile) -> float:
    vectors_in_all = -(-low.filters // unit.lanes)
    blocks = [tile.vectors] * (vectors_in_all // tile.vectors) + [vectors_in_all % tile.vectors]
    pixels = tile.rows * tile.pixels
    squares = tile.rows * -(-tile.pixels // unit.lanes)
    exact = runs_exactly(low, unit, tile)
    cycles = 0.0
    for p in low.passes:
        rows = np.arange(p.out_h) * low.stride_h
        inside = (rows[:, None] + p.rows[0] >= 0) & (rows[:, None] + p.rows[0] < low.height)
        taps = inside.mean() * p.taps if p.taps else 0
        columns = [min(c, p.out_w - tile.pixels) for c in range(0, p.out_w, tile.pixels)]
        for vectors, count in Counter(blocks).items():
            leaving = 2 * vectors * pixels + 3 * vectors * squares * unit.lanes
            per_tap = max(vectors * pixels / 2, (vectors + pixels + 1) / 2, LATENCY)
            if p.taps * vectors * unit.bytes > FIRST_CACHE:
                per_tap = max(per_tap, vectors * unit.bytes / SECOND_BYTES)
            row = len(columns) * (taps * per_tap + CALL + leaving)
            if exact and p.line is not None:
                lines = [_line_cycles(low, unit, p, vectors, tile.pixels, column) for column in columns]
                row = sum(taps / p.line[1] * line + CALL + leaving for line in lines)
            cycles += count * (vectors > 0) * -(-p.out_h // tile.rows) * row
    window = window_for(low, split=False, whole_vectors=False, exact=exact, granularity=tile.rows)
    weights = low.groups * vectors_in_all * unit.bytes * sum(p.taps for p in low.passes)
    far = weights_cost(weights, -(-low.rows // window.chunk) * low.batch, low.batch)
    return low.groups * (cycles + _fill_cost(low, unit, window) + _combine_cost(low)) + far


def _line_cycles(low: TapGeometry, unit: VectorUnit, taps: Pass, vectors: int, pixels: int, column: int) -> float:
    """Cycles of a line_tile for one line of taps."""
    if not vectors or taps.line is None:
        return 0
    _, count, spacing = taps.line
    inside = line_limits(low, taps, pixels, column)
    meetings = meetings_of(pixels, low.stride_w, count, spacing, *inside)
    products = sum(len(met) for _, met in meetings)
    loads = 1 + count * vectors + len(meetings)
    return max(vectors * products / 2, loads / 2, LATENCY * count)


def _weight_grad_cost(g: ConvGeometry, low: TapGeometry, unit: VectorUnit, tile: WeightGradTile) -> float:
    vectors_in_all = -(-g.group_filters // unit.lanes)
    lines_in_all = g.group_channels * (1 if tile.by_row else g.kernel_h)
    columns: float = g.out_w
    over = overhang(g)
    if over is not None:
        skipped = [
            g.kernel_w - len(taps_inside(g.kernel_w, g.stride_w, g.dilation_w, side, column))
            for side in (over.left, over.right)
            for column in range(edge_columns(side, g.stride_w))
        ]
        columns -= sum(skipped) / g.kernel_w
    rows = g.kernel_h * g.out_h if tile.by_row else g.out_h
    if tile.by_row:
        at = np.arange(g.out_h)[:, None] * g.stride_h - g.pad_h + np.arange(g.kernel_h) * g.dilation_h
        rows = int(((at >= 0) & (at < g.height)).sum())
    sums = tile.vectors * tile.lines * g.kernel_w
    per_position = max(sums / 2, (tile.vectors + tile.lines * g.kernel_w) / 2, LATENCY)
    if POSITIONS * tile.vectors * unit.bytes > FIRST_CACHE:
        per_position = max(per_position, tile.vectors * unit.bytes / SECOND_BYTES)
    calls = -(-vectors_in_all // tile.vectors) * -(-lines_in_all // tile.lines)
    cycles = calls * (rows * (columns * per_position + 3) + (g.kernel_h if tile.by_row else 1) * (CALL + 3 * sums))
    window = window_for(low, split=False, whole_vectors=False, exact=is_exact(g, tile))
    leaving = 8 * vectors_in_all * g.out_h * g.out_w
    return g.groups * (_fill_cost(low, unit, window) + leaving + cycles)


def _pixel_cost(low: TapGeometry, unit: VectorUnit, tile: PixelTile) -> float:
    partial = any(p.out_w % unit.lanes for p in low.passes)
    window = window_for(low, split=True, whole_vectors=partial)
    sums = tile.filters * tile.vectors
    # A vector load that is not aligned crosses cache lines: always with 64 bytes, half the time with 32.
    loads = tile.filters + 1 + tile.vectors * (1 + unit.bytes / 64)
    per_tap = max(sums / 2, loads / 2, LATENCY)
    cycles = 0.0
    for p in low.passes:
        vectors = p.out_h * -(-p.out_w // unit.lanes)
        tiles = -(-vectors // tile.vectors) * -(-low.filters // tile.filters)
        cycles += tiles * (p.taps * per_tap + CALL + 2 * sums) + 3 * vectors
    return low.groups * (cycles + _fill_cost(low, unit, window) + _combine_cost(low))


def _fill_cost(low: TapGeometry, unit: VectorUnit, window: SourceWindow) -> float:
    if window.in_place:
        return 0
    rows = window.step_h * window.step_w * window.plane_rows * -(-low.rows // window.chunk)
    vector = {1: 3, 2: 5}.get(window.step_w, 2 * unit.lanes)
    per_row = 2 + vector * -(-window.plane_columns // unit.lanes)
    return low.channels * rows * per_row


def _combine_cost(low: TapGeometry) -> float:
    return low.filters * low.out_h * (10 + low.out_w / 4) if len(low.passes) > 1 else 0
