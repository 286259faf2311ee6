"""The loop nest of the weight gradient with vectors over filters of dy and pixels of the (padded) input broadcast.

For each image dy is transposed to (positions, filters); a tile holds the sums of some lines (channel, kernel row) of
taps and a block of filters in a loop over the positions. Threads share out the images and sum into buffers of their
own, which are added in the order of the threads; with fewer images than threads they share out the lines instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import SummedGradLoop
from sslnet.kernels.conv.packing import (
    SMALL_PACK,
    FilterBlocking,
    address,
    record,
    window_for,
)
from sslnet.kernels.conv.taps import Pass, lower_forward
from sslnet.kernels.conv.transposes import add_rows, add_transposed, load_transposed
from sslnet.kernels.conv.weight_grad_microkernels import edge_columns, weight_grad_tile
from sslnet.kernels.conv.window import fetch_ahead, fill_plane
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import scratch_address
from sslnet.kernels.runtime.threads import parallel
from sslnet.kernels.simd.vector import VectorUnit, call_tile

POSITIONS = 128
"""Positions per call of a tile: enough to outweigh loading and storing the sums, few enough that the block of dy stays
in the first-level cache."""
MOST_EDGES = 8
"""The most columns next to the padding that a tile unrolls."""


@dataclass(frozen=True)
class FilterGradTile:
    """Sums in registers: ``vectors`` of filters by ``lines`` lines of all taps of a kernel row.

    by_row   all lines of a tile have the same kernel row, so that output rows whose source row is padding are skipped
    """

    vectors: int
    lines: int
    by_row: bool

    @property
    def name(self) -> str:
        return f"filters {self.vectors}x{self.lines}"


@dataclass(frozen=True)
class Overhang:
    """Floats by which taps reach into the padding at the first and the last output column; 0 where none is skipped."""

    left: int
    right: int


def overhang(g: ConvGeometry) -> Overhang | None:
    """The padding that weight_grad_tile can skip; None when a column has padding on both sides, or with too many edge
    columns."""
    right = (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w - g.pad_w - (g.width - 1)
    over = Overhang(g.pad_w, max(0, right))
    edges = edge_columns(over.left, g.stride_w) + edge_columns(over.right, g.stride_w)
    return over if edges < g.out_w and edges <= MOST_EDGES else None


def is_exact(g: ConvGeometry, tile: FilterGradTile) -> bool:
    """Whether this tile reads no padding."""
    return tile.by_row and overhang(g) is not None


class FilterGradLoop(SummedGradLoop):
    """The filter loop nest of the weight gradient; nothing is packed in advance."""

    def __init__(self, geometry: ConvGeometry, unit: VectorUnit, tile: FilterGradTile) -> None:
        g = self.geometry = geometry
        self.tile = tile
        self.kernel = tile.name
        self.multiply_adds = g.flops // 2
        low = lower_forward(g)
        window = self.window = window_for(low, split=False, whole_vectors=False, exact=is_exact(g, tile))
        vectors = -(-g.group_filters // unit.lanes)
        self.blocks = FilterBlocking(tile.vectors * unit.lanes, -(-vectors // tile.vectors) * tile.vectors * unit.lanes)
        self.line_offsets, self.line_places, self.line_rows = self._lines(low.passes[0])
        self.line_groups = len(self.line_rows)
        pixels = window.chunk * g.out_w
        # Several small images are summed together.
        self.images = max(1, min(POSITIONS // pixels, g.batch)) if window.chunk == g.out_h else 1
        padded_pixels = -(-pixels // unit.lanes) * unit.lanes
        self.dy_size = self.images * padded_pixels * self.blocks.padded
        self.window_size = window.size * self.images
        sums_taps = g.columns + max(g.kernel_w, unit.lanes)
        self.sums_size = g.groups * self.blocks.count * sums_taps * self.blocks.width
        self.bias_shape = g.groups, self.blocks.padded
        self.group_filters = g.group_filters
        over = overhang(g) or Overhang(0, 0)
        multiply = weight_grad_tile(
            unit, tile.vectors, tile.lines, g.kernel_w, g.stride_w, g.dilation_w, over.left, over.right
        )
        self.numbers = record(
            batch=g.batch, groups=g.groups, channels=g.group_channels, height=g.height, width=g.width,
            filters=g.group_filters, out_h=g.out_h, out_w=g.out_w, stride_h=g.stride_h, padded=self.blocks.padded,
            block_width=self.blocks.width, lanes=unit.lanes, chunk=window.chunk, images=self.images,
            padded_pixels=padded_pixels, block_rows=max(1, POSITIONS // g.out_w), lines=tile.lines, sums_taps=sums_taps,
            columns=g.columns, in_place=window.in_place, first_row=window.first_row, first_column=window.first_column,
            plane_rows=window.plane_rows, plane_columns=window.plane_columns, channel_bytes=window.channel_bytes,
            row_step=window.row_step,
            x_step=g.channels * g.height * g.width * 4 if window.in_place else window.size * 4, fill=fill_plane(unit),
            load=load_transposed(unit), add_rows=add_rows(unit), multiply=multiply, add_sums=add_transposed(unit),
            fetch=fetch_ahead(unit),
        )  # fmt: skip

    def _parts(self, threads: int) -> int:
        return threads if self.geometry.batch >= threads else 1

    def _sum(self, threads: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        if self.geometry.batch >= threads:
            parallel(self._images, self.geometry.batch, x, dy, sums, bias_sums, most=threads)
        else:
            sums[:] = 0
            parallel(self._line_groups, self.line_groups, x, dy, sums, bias_sums)

    def _put(self, threads: int, sums: np.ndarray, dw: np.ndarray, accumulate: bool) -> None:
        units = self.geometry.groups * (self.blocks.padded // self.numbers["lanes"][0])
        parallel(
            _add_units, units, self.numbers, address(sums), sums[0].nbytes, len(sums), address(dw), not accumulate,
            most=1 if dw.size < SMALL_PACK else None,
        )  # fmt: skip

    def _images(self, i0: int, i1: int, thread: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray) -> None:
        sums[thread] = 0
        self._run(i0, i1, 0, self.line_groups, x, dy, sums[thread], bias_sums[thread])

    def _line_groups(
        self, t0: int, t1: int, thread: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray
    ) -> None:
        self._run(0, self.geometry.batch, t0, t1, x, dy, sums[0], bias_sums[0])

    def _run(
        self, i0: int, i1: int, t0: int, t1: int, x: int, dy: int, sums: np.ndarray, bias_sums: np.ndarray
    ) -> None:
        _run_images(
            i0, i1, t0, t1, self.numbers, self.line_offsets, self.line_places, self.line_rows,
            scratch_address("conv window", self.window_size), scratch_address("conv dy", self.dy_size), address(sums),
            address(bias_sums), x, dy,
        )  # fmt: skip

    def _lines(self, taps: Pass) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lines (channel, kernel row) in groups of a tile's: offsets in the window, places in the sums, and output rows.

        A group that is not full is filled up with its last line, summed into a place that is never read.
        """
        g, lines = self.geometry, self.tile.lines
        offsets = np.empty(g.columns, np.int64)
        offsets[taps.weights[0]] = self.window.offsets(taps)[0]
        grid = np.arange(g.group_channels * g.kernel_h).reshape(g.group_channels, g.kernel_h)
        rows = np.arange(g.out_h) * g.stride_h - g.pad_h
        groups, unused, spans = [], [], []
        for kind in grid.T if self.tile.by_row else [grid.ravel()]:
            first, last = 0, g.out_h
            if self.tile.by_row:
                at = rows + int(kind[0]) * g.dilation_h
                inside = np.flatnonzero((at >= 0) & (at < g.height))
                first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
            for start in range(0, len(kind), lines):
                group = kind[start : start + lines]
                unused.append(np.arange(lines) >= len(group))
                groups.append(np.pad(group, (0, lines - len(group)), mode="edge"))
                spans.append((first, last))
        chosen = np.array(groups) * g.kernel_w
        places = np.where(np.array(unused), g.columns, chosen) * self.blocks.width * 4
        return offsets[chosen], places, np.array(spans, np.int64)


@exact_kernel
def _run_images(
    i0, i1, t0, t1, numbers, line_offsets, line_places, line_rows, window, dy_block, sums, bias_sums, x, dy
):  # fmt: skip
    """Adds images i0 .. i1 to the sums of line groups t0 .. t1, and to the bias sums if t0 is 0."""
    n = numbers[0]
    pixels = n.out_h * n.out_w
    row_bytes = n.out_w * n.block_width * 4
    calls = (n.padded // n.block_width) * ((n.out_h + n.block_rows - 1) // n.block_rows) * (t1 - t0) * n.groups
    x_bytes, dy_bytes = n.channels * n.groups * n.height * n.width * 4, n.groups * n.filters * pixels * 4
    for image in range(i0, i1, n.images):
        images = min(n.images, i1 - image)
        # Prefetches the next images while these are summed, a slice with every tile.
        ahead = max(0, min(n.images, i1 - image - images))
        next_x, next_dy = x + (image + images) * x_bytes, dy + (image + images) * dy_bytes
        x_slice, dy_slice = ahead * x_bytes // calls, ahead * dy_bytes // calls
        for top in range(0, n.out_h, n.chunk):
            rows = min(n.chunk, n.out_h - top)
            for group in range(n.groups):
                channel = x + (image * n.groups + group) * n.channels * n.height * n.width * 4
                base = channel + top * n.row_step
                if not n.in_place:
                    base = window
                    window_rows = n.plane_rows - (n.chunk - rows) * n.stride_h
                    for q in range(images):
                        for c in range(n.channels):
                            call_tile(
                                n.fill,
                                (
                                    channel + (q * n.groups * n.channels + c) * n.height * n.width * 4,
                                    n.height, n.width, base + q * n.x_step + c * n.channel_bytes, 0,
                                    n.first_row + top * n.stride_h, n.first_column, 1, 1, window_rows, n.plane_columns,
                                ),
                            )  # fmt: skip
                for f in range(0, n.padded, n.block_width):
                    block = dy_block + f * n.images * n.padded_pixels * 4
                    for q in range(images):
                        maps = ((image + q) * n.groups + group) * n.filters + f
                        positions = block + q * n.padded_pixels * n.block_width * 4
                        call_tile(
                            n.load,
                            (
                                dy + (maps * pixels + top * n.out_w) * 4, pixels * 4, n.filters - f, rows * n.out_w,
                                positions, n.block_width,
                            ),
                        )  # fmt: skip
                        if t0 == 0:
                            filled = (rows * n.out_w + n.lanes - 1) // n.lanes * n.lanes
                            call_tile(
                                n.add_rows, (positions, filled, n.block_width, bias_sums + (group * n.padded + f) * 4)
                            )
                for f in range(0, n.padded, n.block_width):
                    block = dy_block + f * n.images * n.padded_pixels * 4
                    totals = sums + (group * n.padded + f) * n.sums_taps * 4
                    for row in range(0, rows, n.block_rows):
                        for t in range(t0, t1):
                            first = max(row, line_rows[t, 0] - top)
                            last = min(row + n.block_rows, rows, line_rows[t, 1] - top)
                            call_tile(n.fetch, (next_x, x_slice))
                            call_tile(n.fetch, (next_dy, dy_slice))
                            next_x += x_slice
                            next_dy += dy_slice
                            if first < last:
                                call_tile(
                                    n.multiply,
                                    (
                                        block + first * row_bytes, images, n.padded_pixels * n.block_width * 4,
                                        n.x_step, last - first, row_bytes, n.out_w, base + first * n.row_step,
                                        n.row_step, np.int64(line_offsets.ctypes.data) + t * n.lines * 8,
                                        np.int64(line_places.ctypes.data) + t * n.lines * 8, totals,
                                    ),
                                )  # fmt: skip


@exact_kernel
def _add_units(u0, u1, thread, numbers, sums, thread_step, threads, dw, overwrite):
    """Adds the threads' sums to dw for the units u0 .. u1, lanes filters each."""
    n = numbers[0]
    vectors = n.padded // n.lanes
    for u in range(u0, u1):
        group, f = u // vectors, u % vectors * n.lanes
        if f < n.filters:
            inside = f % n.block_width
            start = (group * n.padded + f - inside) * n.sums_taps + inside
            call_tile(
                n.add_sums,
                (
                    sums + start * 4, thread_step, threads, n.block_width * 4,
                    dw + (group * n.filters + f) * n.columns * 4, n.filters - f, n.columns, np.int64(overwrite),
                ),
            )  # fmt: skip
