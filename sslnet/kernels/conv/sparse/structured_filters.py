"""The loop nest over kept filters and columns with vectors over filters; pixels are read in place, padding is skipped.

Taps are sorted by kernel column, then by kernel row. The taps that read a source row, for a row of outputs, are then
one span of each kernel column, and all taps of a span read the source for the same pixels of a tile. Sums are
transposed to the channels of the kept filters. A tile prefetches the pixels and the outputs of the next tiles, because
with few multiplications memory is the bottleneck. Threads share out the rows of all units.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.packing import address, record
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.conv.sparse.lowering import fill_row, integer_at
from sslnet.kernels.conv.sparse.microkernels import kept_tile
from sslnet.kernels.conv.sparse.packing import KeptLoop
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.simd.vector import VectorUnit, call_tile

WINDOW_BYTES = 256 * 1024
"""The most bytes of the source rows of a chunk: they and the rows of the next chunk stay in the second-level cache."""
Cut = tuple[int, int]
"""(first pixel in its row, number of pixels) of a tile."""

FilterBlocks = tuple[tuple[int, ...], ...]
"""For each group, the number of vectors of filters of each of its blocks."""

UNIT = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("start", "group", "row", "rows", "first", "vectors", "first_dropped", "dropped"),
            *("ahead", "ahead_piece", "ahead_bytes", "out", "out_piece", "out_bytes"),
        )
    ]
)
"""A unit, a block of filters over some rows: the rows of all units before it; its group, rows, filters, and the dropped
filters among them. The input to prefetch meanwhile: its start, relative to the image's first pixel, bytes per channel
and in all. The same for its own outputs, relative to the image's first output."""


def spans_of(g: ConvGeometry) -> int:
    """The number of spans of taps of a row: one per kernel column, or one in all without column padding."""
    return g.kernel_w if g.is_padded_w else 1


def cut_row(g: ConvGeometry, unit: VectorUnit, vectors: int) -> list[Cut]:
    """An output row cut into as few tiles as the registers allow, as even as possible."""
    most = (unit.registers - 1) // vectors - 1
    count = -(-g.out_w // most)
    ends = [g.out_w * i // count for i in range(count + 1)]
    return [(a, b - a) for a, b in pairwise(ends)]


def limits(g: ConvGeometry, cut: Cut) -> tuple[int, int]:
    """The values low and high of kept_tile for these pixels."""
    column, pixels = cut
    begin = column * g.stride_w - g.pad_w
    beyond = (pixels - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1
    return max(0, -begin), min(beyond, g.width - begin)


def even_parts(count: int, most: int) -> list[int]:
    """The sizes of the fewest even parts of ``count``, each at most ``most``, larger parts first."""
    parts = -(-count // most)
    return [(count + i) // parts for i in range(parts)][::-1]


def group_spans(g: ConvGeometry, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A group's columns in the order of the taps, and (out_h, spans, 2): first tap and number of taps of each span."""
    channel, i, j = np.unravel_index(columns, (g.group_channels, g.kernel_h, g.kernel_w))
    # Order by column: neighbours in a kernel row, one after the other, are slower, as they read the same cache lines.
    span, level = j if g.is_padded_w else 0 * j, i if g.is_padded_h else 0 * i
    order = np.lexsort((channel, i, j, level, span))
    places = (span * g.kernel_h + level)[order]
    top = np.arange(g.out_h) * g.stride_h - g.pad_h
    # Kernel rows from the first one that is not above the source to the last one that is not below it.
    first = np.clip(-(top // g.dilation_h), 0, g.kernel_h)
    last = np.maximum(np.clip(-((top - g.height) // g.dilation_h), 0, g.kernel_h), first)
    starts = np.arange(spans_of(g)) * g.kernel_h
    low, high = (np.searchsorted(places, starts + rows[:, None]) for rows in (first, last))
    return columns[order], np.stack([low, high - low], axis=2).astype(np.int64)


class KeptFilterLoop(KeptLoop):
    """The loop nest over kept filters and columns with vectors over filters.

    blocks   the number of vectors of filters of the blocks of each group
    """

    def __init__(
        self,
        geometry: ConvGeometry,
        kept: SparsityPattern,
        unit: VectorUnit,
        blocks: FilterBlocks,
        *,
        relu: bool = False,
    ) -> None:
        g = geometry
        self.most = max((v for own in blocks for v in own), default=0)
        columns, spans = zip(*(group_spans(g, c) for c in kept.columns))
        super().__init__(g, kept, columns, unit.lanes, unit)
        self.kernel = f"kept filters {self.most}"
        self.spans = np.stack(spans)
        self.offsets = np.concatenate([_offsets(g, group, c) for group, c in enumerate(columns)])
        self.table = np.array(list(self._units(blocks, unit)), UNIT)
        self.total = int(self.table["rows"].sum())
        self.units = g.batch * self.total
        self.tiles, self.counts = _tile_table(g, unit, {v for own in blocks for v in own})
        self.numbers = record(
            batch=g.batch, groups=g.groups, channels=g.channels, height=g.height, width=g.width, filters=g.filters,
            out_h=g.out_h, out_w=g.out_w, stride_h=g.stride_h, stride_w=g.stride_w, lanes=unit.lanes,
            spans=spans_of(g), rows=self.total, relu=relu, fill=fill_row(unit), offsets=address(self.offsets),
            span_table=address(self.spans), **self._places(),
        )  # fmt: skip

    def _units(self, blocks: FilterBlocks, unit: VectorUnit) -> Iterator[tuple[int, ...]]:
        """The units of an image: all blocks of filters for each group and chunk of rows, one without filters if all are
        dropped."""
        g = self.geometry
        plane, source = 4 * g.out_h * g.out_w, 4 * g.height * g.width
        sizes = even_parts(g.out_h, max(4, WINDOW_BYTES // (4 * g.group_channels * g.stride_h * g.width)))
        rows = np.cumsum([0, *sizes])
        # First and end source row of each chunk.
        tops = np.maximum(rows[:-1] * g.stride_h - g.pad_h, 0)
        ends = np.minimum((rows[1:] - 1) * g.stride_h - g.pad_h + (g.kernel_h - 1) * g.dilation_h + 1, g.height)
        start = 0
        for group, (vectors, filters) in enumerate(zip(blocks, self.kept.filters)):
            own = vectors or (0,)
            first = np.cumsum([0, *own]) * unit.lanes
            # A block covers the outputs from its first filter to the first filter of the next block.
            begins = [0, *(int(filters[f]) for f in first[1:-1]), g.group_filters]
            edges = np.array(begins) + group * g.group_filters
            dropped = np.searchsorted(self.dropped, edges)
            channels = np.arange(len(own) + 1) * g.group_channels // len(own)
            for chunk, size in enumerate(sizes):
                after = (chunk + 1) % len(sizes)
                next_channel = (group + (after == 0)) * g.group_channels
                piece = max(int(ends[after] - tops[after]), 0) * 4 * g.width
                out_piece = size * 4 * g.out_w
                for b, v in enumerate(own):
                    yield (
                        start, group, rows[chunk], size, first[b], v, dropped[b], dropped[b + 1] - dropped[b],
                        (next_channel + channels[b]) * source + tops[after] * 4 * g.width, piece,
                        (channels[b + 1] - channels[b]) * piece, edges[b] * plane + rows[chunk] * 4 * g.out_w,
                        out_piece, (edges[b + 1] - edges[b]) * out_piece,
                    )  # fmt: skip
                    start += size

    def _call(self) -> tuple[Any, ...]:
        return _run_rows, self.numbers, self.groups, self.table, self.tiles, self.counts


def _offsets(g: ConvGeometry, group: int, columns: np.ndarray) -> np.ndarray:
    """Bytes from the start of an output's window in channel 0 of the image to the pixel that each column reads."""
    channel, i, j = np.unravel_index(columns, (g.group_channels, g.kernel_h, g.kernel_w))
    row = (group * g.group_channels + channel) * g.height + i * g.dilation_h - g.pad_h
    return 4 * (row * g.width + j * g.dilation_w - g.pad_w).astype(np.int64)


def _tile_table(g: ConvGeometry, unit: VectorUnit, kinds: set[int]) -> tuple[np.ndarray, np.ndarray]:
    """The tiles of a row by the vectors of a block: (most vectors + 1, tiles of a row, 2) int64 of micro-kernel and
    first pixel; and the number of tiles."""
    cuts = {vectors: cut_row(g, unit, vectors) for vectors in kinds}
    size = max(kinds, default=0) + 1
    table = np.zeros((size, max(map(len, cuts.values()), default=0), 2), np.int64)
    counts = np.zeros(size, np.int64)
    spacing = g.dilation_w if g.is_padded_w else 1
    for vectors, own in cuts.items():
        counts[vectors] = len(own)
        for t, cut in enumerate(own):
            low, high = limits(g, cut) if g.is_padded_w else (0, (cut[1] - 1) * g.stride_w + 1)
            tile = kept_tile(unit, vectors, cut[1], g.stride_w, spans_of(g), spacing, low, high)
            table[vectors, t] = tile, cut[0]
    return table, counts


@exact_kernel
def _run_rows(r0, r1, numbers, groups, units, tiles, counts, source, target):
    """Computes rows r0 .. r1 of the units of all images."""
    n = numbers[0]
    plane, out_plane = n.height * n.width * 4, n.out_h * n.out_w * 4
    source_end = source + n.batch * n.channels * plane
    for image in range(r0 // n.rows, (r1 + n.rows - 1) // n.rows):
        x, y = source + image * n.channels * plane, target + image * n.filters * out_plane
        for u in range(units.size):
            unit = units[u]
            start = image * n.rows + unit.start
            first, last = max(r0, start) - start, min(r1, start + unit.rows) - start
            if first >= last:
                continue
            there = x + unit.ahead < source_end
            ahead, ahead_piece, ahead_bytes = x + unit.ahead, unit.ahead_piece, unit.ahead_bytes if there else 0
            following = units[(u + 1) % units.size]
            there = start + unit.rows < r1
            out = y + (u + 1) // units.size * n.filters * out_plane + following.out
            out_piece, out_bytes = following.out_piece, following.out_bytes if there else 0
            group = groups[unit.group]
            filter_ = group.first_filter + unit.first
            tile_count = counts[unit.vectors]
            calls = max(tile_count * unit.rows, 1)
            taps = max(group.taps, 1)
            for row in range(first, last):
                line = x + (unit.row + row) * n.stride_h * n.width * 4
                spans = n.span_table + (unit.group * n.out_h + unit.row + row) * n.spans * 16
                for t in range(tile_count):
                    column = tiles[unit.vectors, t, 1]
                    call = row * tile_count + t
                    ahead_at, ahead_step = _share(ahead, ahead_bytes, ahead_piece, plane, call, calls, taps)
                    out_at, out_step = _share(out, out_bytes, out_piece, out_plane, call, calls, taps)
                    call_tile(
                        tiles[unit.vectors, t, 0],
                        (
                            n.values + (group.weights + unit.first * group.taps) * 4, group.taps * n.lanes * 4,
                            n.offsets + group.first_tap * 8, spans, line + column * n.stride_w * 4,
                            n.bias + filter_ * 4, n.targets + filter_ * 8,
                            y + ((unit.row + row) * n.out_w + column) * 4, group.filters - unit.first, n.relu,
                            ahead_at, ahead_step, out_at, out_step,
                        ),
                    )  # fmt: skip
            if first == 0:
                for d in range(unit.first_dropped, unit.first_dropped + unit.dropped):
                    call_tile(
                        n.fill,
                        (
                            n.dropped_bias + d * 4, y + integer_at(n.dropped + d * 8) + unit.row * n.out_w * 4,
                            unit.rows * n.out_w, n.relu,
                        ),
                    )  # fmt: skip


@njit(nogil=True)
def _share(begin, size, piece, step, call, calls, taps):
    """The part of a prefetch of ``size`` bytes, in pieces ``step`` apart, for one of the calls: (start, bytes per
    tap)."""
    if size == 0:
        return begin, 0
    own = (size + calls - 1) // calls
    at = call * own
    return begin + at // piece * step + at % piece, min(64, (own + taps - 1) // taps)
