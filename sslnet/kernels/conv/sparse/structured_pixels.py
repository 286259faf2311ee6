"""The loop nest over kept filters and columns with vectors over pixels, which are lowered a chunk of rows at a time.

Filters beyond the last full tile cost no more than the others, and outputs are stored in the channels of the kept
filters without a transpose. Threads share out images, groups and chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.packing import address, record
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.conv.sparse.lowering import fill_row, integer_at, lower_same, lower_taps
from sslnet.kernels.conv.sparse.microkernels import panel_tile
from sslnet.kernels.conv.sparse.packing import KeptLoop
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.recording import Scratch
from sslnet.kernels.runtime.threads import num_parts
from sslnet.kernels.simd.vector import VectorUnit, call_tile

CHUNK_BYTES = 448 * 1024
"""The most bytes of a lowered chunk: it stays in the second-level cache while all filters use it."""


@dataclass(frozen=True)
class PanelTile:
    """Outputs in registers: ``filters`` by up to ``vectors`` vectors of pixels."""

    filters: int
    vectors: int


def panels_of(vectors: int, most: int) -> list[int]:
    """The sizes of the fewest even panels of ``vectors`` vectors, each at most ``most``."""
    count = -(-vectors // most)
    return [(vectors + i) // count for i in range(count)][::-1] if vectors else []


CHUNK = np.dtype([(name, np.int64) for name in ("pixel", "pixels", "top", "rows", "vectors")])


def is_same(geometry: ConvGeometry) -> bool:
    """Whether an output row is as long as a source row, at stride 1: a tap is then a shift of the whole plane."""
    return geometry.out_w == geometry.width and geometry.stride_h == geometry.stride_w == 1


def cut_chunks(unit: VectorUnit, geometry: ConvGeometry, tile: PanelTile, taps: int) -> np.ndarray:
    """The output pixels in chunks that are lowered together: a panel of vectors where taps are shifts, else some
    rows."""
    g = geometry
    if not is_same(g):
        rows = max(1, CHUNK_BYTES // (4 * max(taps, 1) * g.out_w))
        if g.batch * g.groups < num_parts():
            rows = min(rows, -(-g.out_h * g.batch * g.groups // num_parts()))
        return rows_chunks(unit, g, rows)
    return vector_chunks(unit, g, tile.vectors)


def vector_chunks(unit: VectorUnit, geometry: ConvGeometry, vectors: int) -> np.ndarray:
    """The output pixels in even chunks of at most ``vectors`` vectors, across the ends of rows."""
    pixels = geometry.out_h * geometry.out_w
    sizes = np.array(panels_of(-(-pixels // unit.lanes), vectors)) * unit.lanes
    starts = np.cumsum(sizes) - sizes
    return _chunks(unit, geometry, starts, np.minimum(sizes, pixels - starts))


def rows_chunks(unit: VectorUnit, geometry: ConvGeometry, rows: int) -> np.ndarray:
    """The output pixels in even chunks of at most ``rows`` rows."""
    g = geometry
    rows = -(-g.out_h // -(-g.out_h // rows))
    starts = np.arange(0, g.out_h, rows) * g.out_w
    return _chunks(unit, g, starts, np.minimum(rows * g.out_w, g.out_h * g.out_w - starts))


def _chunks(unit: VectorUnit, geometry: ConvGeometry, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    chunks = np.zeros(len(starts), CHUNK)
    chunks["pixel"], chunks["pixels"] = starts, counts
    chunks["top"], chunks["rows"] = starts // geometry.out_w, counts // geometry.out_w
    chunks["vectors"] = -(-counts // unit.lanes)
    return chunks


def tile_table(unit: VectorUnit, tile: PanelTile, chunks: np.ndarray) -> np.ndarray:
    """Addresses of the micro-kernels, by the number of vectors of a chunk's panel."""
    table = np.zeros(tile.vectors + 1, np.int64)
    for vectors in {v for chunk in set(chunks["vectors"].tolist()) for v in panels_of(chunk, tile.vectors)}:
        table[vectors] = panel_tile(unit, tile.filters, vectors)
    return table


def tap_numbers(geometry: ConvGeometry, group: int, columns: np.ndarray) -> np.ndarray:
    """The table of lower_taps for these columns of the group: (columns, 3) int64."""
    g = geometry
    channel, i, j = np.unravel_index(columns, (g.group_channels, g.kernel_h, g.kernel_w))
    plane = 4 * g.height * g.width * (group * g.group_channels + channel)
    numbers = [plane, i * g.dilation_h - g.pad_h, j * g.dilation_w - g.pad_w]
    return np.ascontiguousarray(np.stack(numbers, axis=1).astype(np.int64))


class Taps:
    """The lowering of the pixels that the kept taps read.

    move    address of lower_same or lower_taps
    table   the table of that function, for all groups
    masks   the masks of lower_same
    """

    def __init__(self, unit: VectorUnit, geometry: ConvGeometry, columns: tuple[np.ndarray, ...]) -> None:
        g = geometry
        self.table = np.concatenate([tap_numbers(g, group, c) for group, c in enumerate(columns)])
        self.masks = np.zeros(1, np.uint8)
        self.move = lower_taps(unit, g.stride_w)
        if is_same(g):
            self.move = lower_same(unit)
            self.masks = tap_masks(unit, g)
            plane, row, column = self.table.T
            place = np.concatenate([c % (g.kernel_h * g.kernel_w) for c in columns]) * self.masks[0].nbytes
            self.table = np.ascontiguousarray(np.stack([plane + 4 * (row * g.width + column), place], axis=1))


def tap_masks(unit: VectorUnit, geometry: ConvGeometry) -> np.ndarray:
    """Masks (kernel_h * kernel_w, bytes) uint8: one bit for each output pixel, 1 where the tap reads the source."""
    g = geometry
    i, j = np.arange(g.kernel_h) * g.dilation_h - g.pad_h, np.arange(g.kernel_w) * g.dilation_w - g.pad_w
    row, column = np.arange(g.out_h) + i[:, None], np.arange(g.out_w) + j[:, None]
    row_inside, column_inside = (row >= 0) & (row < g.height), (column >= 0) & (column < g.width)
    inside = (row_inside[:, None, :, None] & column_inside[None, :, None, :]).reshape(g.kernel_h * g.kernel_w, -1)
    vectors = -(-g.out_h * g.out_w // unit.lanes)
    flags = np.pad(inside, [(0, 0), (0, vectors * unit.lanes - inside.shape[1])])
    by_vector = flags.reshape(len(flags), vectors, unit.lanes)
    whole_bytes = np.pad(by_vector, [(0, 0), (0, 0), (0, max(8 - unit.lanes, 0))])
    return np.packbits(whole_bytes, axis=2, bitorder="little").reshape(len(flags), -1)


class KeptPixelLoop(KeptLoop):
    """The loop nest over kept filters and columns with vectors over output pixels."""

    def __init__(
        self, geometry: ConvGeometry, kept: SparsityPattern, unit: VectorUnit, tile: PanelTile, *, relu: bool = False
    ) -> None:
        g = geometry
        most = max(len(c) for c in kept.columns)
        self.tile, self.chunks = tile, cut_chunks(unit, g, tile, most)
        super().__init__(g, kept, kept.columns, self.tile.filters, unit)
        self.kernel = f"kept pixels {self.tile.filters}x{self.tile.vectors}"
        self.taps = Taps(unit, g, kept.columns)
        self.col_size = (most * int(self.chunks["vectors"].max()) + 2) * unit.lanes
        self.tiles = tile_table(unit, self.tile, self.chunks)
        self.units = g.batch * g.groups * len(self.chunks)
        self.numbers = record(
            groups=g.groups, channels=g.channels, height=g.height, width=g.width, filters=g.filters, out_h=g.out_h,
            out_w=g.out_w, stride_h=g.stride_h, lanes=unit.lanes, mask_bytes=max(unit.lanes, 8) // 8,
            tile_filters=self.tile.filters, tile_vectors=self.tile.vectors, relu=relu, same=is_same(g),
            move=self.taps.move, fill=fill_row(unit), taps=address(self.taps.table), masks=address(self.taps.masks),
            **self._places(),
        )  # fmt: skip

    def _call(self) -> tuple[Any, ...]:
        col = Scratch("conv col", self.col_size)
        return _run_kept, self.numbers, self.groups, self.chunks, self.tiles, col


@exact_kernel
def _run_kept(u0, u1, numbers, groups, chunks, tiles, col, source, target):
    """Computes units u0 .. u1; a unit is a chunk of a group of an image."""
    n = numbers[0]
    pixels = n.out_h * n.out_w
    for u in range(u0, u1):
        image, rest = u // (n.groups * chunks.size), u % (n.groups * chunks.size)
        group, chunk = groups[rest // chunks.size], chunks[rest % chunks.size]
        pitch = chunk.vectors * n.lanes * 4
        lower(n, source + image * n.channels * n.height * n.width * 4, group.first_tap, group.taps, chunk, col, pitch)
        y = target + (image * n.filters * pixels + chunk.pixel) * 4
        panels = (chunk.vectors + n.tile_vectors - 1) // n.tile_vectors
        first = 0
        for panel in range(panels):
            own = (chunk.vectors + panels - 1 - panel) // panels
            last = min(n.lanes, chunk.pixels - (first + own - 1) * n.lanes)
            for f in range(0, group.filters, n.tile_filters):
                call_tile(
                    tiles[own],
                    (
                        n.values + (group.weights + f * group.taps) * 4, group.taps, col + first * n.lanes * 4, pitch,
                        n.bias + (group.first_filter + f) * 4, n.targets + (group.first_filter + f) * 8,
                        y + first * n.lanes * 4, group.filters - f, last, n.relu,
                    ),
                )  # fmt: skip
            first += own
        for d in range(group.first_dropped, group.first_dropped + group.dropped):
            call_tile(n.fill, (n.dropped_bias + d * 4, y + integer_at(n.dropped + d * 8), chunk.pixels, n.relu))


@exact_kernel
def lower(n, image, first, taps, chunk, col, pitch):
    """Lowers a chunk of the image for ``taps`` taps from ``first`` on."""
    if n.same:
        masks = n.masks + chunk.pixel // n.lanes * n.mask_bytes
        call_tile(n.move, (image + chunk.pixel * 4, n.taps + first * 16, taps, chunk.vectors, masks, col, pitch))
    else:
        call_tile(
            n.move,
            (
                image, n.taps + first * 24, taps, n.height, n.width, chunk.top, chunk.rows, n.out_w, n.stride_h, col,
                pitch,
            ),
        )  # fmt: skip
