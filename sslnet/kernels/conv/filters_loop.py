"""The loop nest (macro-kernel) with vectors over filters: it takes any stride and skips rows in the padding.

The sums of a tile are transposed to NCHW when they are stored. Taps are blocked (``tap_block``: KC blocking) so that a
block of weights stays in the cache while it is multiplied with all pixels of the chunk; between blocks a buffer holds
the sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet.kernels.conv.loop_nest import PackedLoop
from sslnet.kernels.conv.microkernels import filter_tile, line_pixels, line_tile
from sslnet.kernels.conv.packing import FilterBlocking, PackedWeights, pass_table, record, window_for
from sslnet.kernels.conv.taps import Pass, TapGeometry
from sslnet.kernels.conv.transposes import store_tile
from sslnet.kernels.conv.window import fill_plane, interleave
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.recording import Scratch
from sslnet.kernels.simd.vector import VectorUnit, call_tile


@dataclass(frozen=True)
class FilterTile:
    """Outputs in registers: ``vectors`` of filters by ``rows`` rows of ``pixels`` pixels."""

    vectors: int
    rows: int
    pixels: int

    @property
    def name(self) -> str:
        return f"filters {self.vectors}x{self.rows}x{self.pixels}"


class FilterLoop(PackedLoop):
    """The filter loop nest of one pass of a convolution."""

    def __init__(
        self, lowering: TapGeometry, unit: VectorUnit, tile: FilterTile, *, relu: bool = False, tap_block: int = 0
    ) -> None:
        low = self.lowering = lowering
        self.tile = tile
        self.kernel = tile.name
        exact = runs_exactly(low, unit, tile)
        window = self.window = window_for(low, split=False, whole_vectors=False, exact=exact, granularity=tile.rows)
        vectors_in_all = -(-low.filters // unit.lanes)
        vectors = min(tile.vectors, vectors_in_all)
        self.blocks = FilterBlocking(vectors * unit.lanes, vectors_in_all * unit.lanes)
        self.weights = PackedWeights(low, self.blocks, unit)
        self.image_units = -(-low.rows // tile.rows)
        self.units = low.batch * self.image_units
        self.multiply_adds = low.multiply_adds
        most_taps = max(p.taps for p in low.passes)
        whole_lines = math.lcm(*(p.line[1] for p in low.passes if p.line))
        tap_block = max(tap_block // whole_lines, 1) * whole_lines if tap_block else max(most_taps, 1)
        chunk_units = window.chunk // tile.rows
        tile_sums = tile.rows * tile.pixels * self.blocks.width
        waiting = chunk_units * max(-(-p.out_w // tile.pixels) for p in low.passes) if tap_block < most_taps else 1
        self.sums_size = tile_sums * waiting + unit.lanes * self.blocks.width
        self.offsets = np.concatenate([window.offsets(p).ravel() for p in low.passes])
        self.spans = self._spans()
        self.passes, self.places, self.planes_size = pass_table(low, self.weights, chunk_units)
        combine = interleave(unit) if len(low.passes) > 1 else 0
        self.tiles = self._tile_table(unit, vectors, exact)
        self.numbers = record(
            groups=low.groups, channels=low.channels, height=low.height, width=low.width, filters=low.filters,
            out_h=low.out_h, out_w=low.out_w, stride_h=low.stride_h, stride_w=low.stride_w, step_h=low.step_h,
            step_w=low.step_w, padded=self.blocks.padded, block_width=self.blocks.width, lanes=unit.lanes,
            tile_rows=tile.rows, tile_pixels=tile.pixels, units=self.image_units, chunk_units=chunk_units,
            tap_block=tap_block, relu=relu, in_place=window.in_place, first_row=window.first_row,
            first_column=window.first_column, plane_rows=window.plane_rows, plane_columns=window.plane_columns,
            plane_bytes=window.plane_bytes, channel_bytes=window.channel_bytes, row_step=window.row_step,
            fill=fill_plane(unit), store=store_tile(unit), combine=combine,
        )  # fmt: skip

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        self.weights.pack(weights, bias)

    def _call(self) -> tuple[Any, ...]:
        return (
            _run_filters, self.numbers, self.passes, self.places, self.offsets, self.spans, self.tiles,
            *self.weights.places, Scratch("conv window", self.window.size), Scratch("conv sums", self.sums_size),
            Scratch("conv planes", self.planes_size),
        )  # fmt: skip

    def _tile_table(self, unit: VectorUnit, vectors: int, exact: bool) -> np.ndarray:
        """The micro-kernel at each place of a row, for a full block of filters and for the last one: (passes, tiles of
        a row, 2)."""
        low, pixels = self.lowering, self.tile.pixels
        counts = vectors, self.blocks.padded // unit.lanes % vectors
        table = np.zeros((len(low.passes), max(-(-p.out_w // pixels) for p in low.passes), 2), np.int64)
        for p, taps in enumerate(low.passes):
            for t, start in enumerate(range(0, taps.out_w, pixels)):
                column = min(start, taps.out_w - pixels)
                for which, count in enumerate(counts):
                    if count:
                        table[p, t, which] = _tile_at(unit, low, taps, self.tile, count, column, exact)
        return table

    def _spans(self) -> np.ndarray:
        """The range of taps that each unit needs, (passes, groups, units, 2): those that meet the source in any row."""
        low, tile = self.lowering, self.tile
        spans = np.zeros((len(low.passes), low.groups, self.image_units, 2), np.int64)
        for p, taps in enumerate(low.passes):
            rows = np.minimum(np.arange(self.image_units) * tile.rows, max(taps.out_h - tile.rows, 0))
            lowest, beyond = -(rows + tile.rows - 1) * low.stride_h, low.height - rows * low.stride_h
            for group in range(low.groups):
                spans[p, group, :, 0] = np.searchsorted(taps.rows[group], lowest)
                spans[p, group, :, 1] = np.searchsorted(taps.rows[group], beyond)
        return spans


def runs_exactly(low: TapGeometry, unit: VectorUnit, tile: FilterTile) -> bool:
    """Whether line_tile can compute these taps, so that no padding is read or multiplied."""
    lines = [p.line for p in low.passes if p.taps]
    vectors = min(tile.vectors, -(-low.filters // unit.lanes))
    return tile.rows == 1 and all(
        line is not None and tile.pixels <= line_pixels(unit, vectors, line[1]) for line in lines
    )


def line_limits(low: TapGeometry, taps: Pass, pixels: int, column: int) -> tuple[int, int]:
    """The values low and high of line_tile for the pixels of a row from ``column`` on."""
    assert taps.line is not None
    first, count, spacing = taps.line
    begin = column * low.stride_w + first
    beyond = (pixels - 1) * low.stride_w + (count - 1) * spacing + 1
    return max(0, -begin), min(beyond, low.width - begin)


def _tile_at(
    unit: VectorUnit, low: TapGeometry, taps: Pass, tile: FilterTile, vectors: int, column: int, exact: bool
) -> int:
    """The address of the micro-kernel for the pixels of a row from ``column`` on."""
    if not exact or taps.line is None:
        return filter_tile(unit, vectors, tile.rows, tile.pixels, low.stride_w)
    _, count, spacing = taps.line
    limits = line_limits(low, taps, tile.pixels, column)
    return line_tile(unit, vectors, tile.pixels, low.stride_w, count, spacing, *limits)


@exact_kernel
def _run_filters(
    u0, u1, numbers, passes, places, offsets, spans, tiles, packed, bias, window, sums, planes, source, target
):  # fmt: skip
    """Computes units u0 .. u1 of all images; a unit is tile_rows rows of outputs."""
    n = numbers[0]
    several = passes.size > 1
    pixels = n.out_h * n.out_w
    u = u0
    while u < u1:
        image, first = u // n.units, u % n.units
        last = min(first + n.chunk_units, n.units, first + u1 - u)
        top = min(first * n.tile_rows, max(passes[0].out_h - n.tile_rows, 0))
        bottom = min(last * n.tile_rows, passes[0].out_h)
        for group in range(n.groups):
            channel = source + (image * n.groups + group) * n.channels * n.height * n.width * 4
            maps = (image * n.groups + group) * n.filters
            if n.in_place:
                base = channel + top * n.row_step
            else:
                base = window
                rows = n.plane_rows - (n.chunk_units * n.tile_rows - (bottom - top)) * n.stride_h
                for c in range(n.channels):
                    call_tile(
                        n.fill,
                        (
                            channel + c * n.height * n.width * 4, n.height, n.width, base + c * n.channel_bytes,
                            n.plane_bytes, n.first_row + top * n.stride_h, n.first_column,
                            1, 1, rows, n.plane_columns,
                        ),
                    )  # fmt: skip
            for p in range(passes.size):
                one = passes[p]
                end = min(last, (one.out_h + n.tile_rows - 1) // n.tile_rows)
                if several:
                    out = planes + (one.plane - first * one.out_w) * 4
                    out_step = n.chunk_units * one.out_w * 4
                else:
                    out = target + maps * pixels * 4
                    out_step = pixels * 4
                _run_blocks(
                    n, one, group, first, end, top, base, out, out_step, spans[p, group], tiles[p],
                    np.int64(offsets.ctypes.data) + (one.offsets + group * one.taps) * 8,
                    packed + (one.weights + group * n.padded * one.taps) * 4,
                    bias + group * n.padded * 4, sums,
                )  # fmt: skip
            if several:
                call_tile(
                    n.combine,
                    (
                        planes, n.filters, np.int64(places.ctypes.data), n.chunk_units, first, last,
                        target + maps * pixels * 4, n.out_h, n.out_w, n.step_h, n.step_w,
                    ),
                )  # fmt: skip
        u += last - first


@exact_kernel
def _run_blocks(
    n, one, group, first, end, top, base, out, out_step, spans, tiles, offsets, packed, bias, sums
):  # fmt: skip
    """Computes all filters of a group over the units first .. end of one image and pass."""
    tiles_per_row = (one.out_w + n.tile_pixels - 1) // n.tile_pixels
    waits = n.tap_block < one.taps
    for f in range(0, n.padded, n.block_width):
        width = min(n.block_width, n.padded - f)
        which = 0 if width == n.block_width else 1
        tile_bytes = n.tile_pixels * width * 4
        weights = packed + f * one.taps * 4
        for k in range(0, max(one.taps, 1), n.tap_block):
            for unit in range(first, end):
                low, high = spans[unit, 0], spans[unit, 1]
                a, b = max(low, k), min(high, k + n.tap_block)
                if low >= high:
                    # No tap meets this row: its outputs are the bias, stored once.
                    if k > 0:
                        continue
                    a = b = low = high = 0
                elif a >= b:
                    continue
                row = min(unit * n.tile_rows, one.out_h - n.tile_rows)
                start = bias + f * 4 if a == low else 0
                for t in range(tiles_per_row):
                    column = min(t * n.tile_pixels, one.out_w - n.tile_pixels)
                    own = sums
                    if waits:
                        own += ((unit - first) * tiles_per_row + t) * n.tile_rows * tile_bytes
                    call_tile(
                        tiles[t, which],
                        (
                            weights + a * width * 4, offsets + a * 8, b - a,
                            base + (row - top) * n.row_step + column * n.stride_w * 4, n.row_step, own, start,
                        ),
                    )  # fmt: skip
                    if b == high:
                        for r in range(n.tile_rows):
                            call_tile(
                                n.store,
                                (
                                    own + r * tile_bytes, width // n.lanes, n.tile_pixels,
                                    out + f * out_step + ((row + r) * one.out_w + column) * 4, out_step,
                                    n.filters - f, n.relu,
                                ),
                            )  # fmt: skip
