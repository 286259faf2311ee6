"""The loop nests of the gradients of a convolution with kept filters and columns.

Input gradient: the transposed weights times dy are the gradient of the kept rows of the lowered matrix, which is added
back to the pixels. Weight gradient: products of dy and the lowered pixels, summed over pixels, only for kept filters
and columns.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.packing import address, record, threads_for
from sslnet.kernels.conv.pattern import SparsityPattern
from sslnet.kernels.conv.sparse.lowering import add_taps, fill_row, lower_same
from sslnet.kernels.conv.sparse.microkernels import dot_tile
from sslnet.kernels.conv.sparse.packing import GROUP, pack_kept
from sslnet.kernels.conv.sparse.structured_pixels import (
    CHUNK_BYTES,
    PanelTile,
    Taps,
    is_same,
    lower,
    rows_chunks,
    tap_numbers,
    tile_table,
    vector_chunks,
)
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.runtime.memory import aligned_zeros, scratch
from sslnet.kernels.runtime.recording import Scratch
from sslnet.kernels.runtime.threads import num_parts, parallel
from sslnet.kernels.simd.vector import VectorUnit, call_tile

PART = np.dtype([*GROUP.descr, ("channel", np.int64), ("channels", np.int64)])
MOST_VECTORS = 64
"""The most vectors of pixels of several small images that are summed together, so that adding up lanes costs little."""


def channel_parts(g: ConvGeometry) -> int:
    """The number of parts of a group's channels: with fewer images than threads, the threads share out the channels."""
    return 1 if g.batch * g.groups >= num_parts() else min(num_parts(), g.group_channels)


def columns_of_parts(g: ConvGeometry, kept: SparsityPattern) -> list[np.ndarray]:
    """The kept columns of each part of the channels, for all groups."""
    parts, taps = channel_parts(g), g.kernel_h * g.kernel_w
    bounds = [g.group_channels * part // parts * taps for part in range(parts + 1)]
    return [own[(own >= a) & (own < b)] for own in kept.columns for a, b in pairwise(bounds)]


def lowered_chunks(unit: VectorUnit, g: ConvGeometry, most: int) -> np.ndarray:
    """The output pixels in chunks of rows whose lowered gradients, of at most ``most`` columns, stay in the cache."""
    return rows_chunks(unit, g, max(1, CHUNK_BYTES // (4 * max(most, 1) * g.out_w)))


class KeptInputGradLoop(PackedLoop):
    """The loop nest of dx: the adjoint of the convolution over the kept weights, applied to dy, without a bias."""

    def __init__(self, geometry: ConvGeometry, kept: SparsityPattern, unit: VectorUnit, tile: PanelTile) -> None:
        g = self.geometry = geometry
        self.tile = tile
        parts = channel_parts(g)
        table = np.zeros(g.groups * parts, PART)
        columns, rows = [], []
        pieces = columns_of_parts(g, kept)
        for p, own in enumerate(pieces):
            group, part = divmod(p, parts)
            first, last = (g.group_channels * q // parts for q in (part, part + 1))
            filters = kept.filters[group]
            table[p]["channel"], table[p]["channels"] = group * g.group_channels + first, last - first
            table[p]["filters"], table[p]["taps"] = len(own), len(filters)
            rows.append(filters + group * g.group_filters)
        most = max(len(c) for c in pieces)
        self.chunks = lowered_chunks(unit, g, most)
        filter_ = tap = column = weight = 0
        for one, own in zip(table, pieces, strict=True):
            padded = -(-len(own) // self.tile.filters) * self.tile.filters
            one["first_filter"], one["first_tap"], one["first_dropped"], one["weights"] = filter_, tap, column, weight
            columns.append(np.pad(own, (0, padded - len(own)), constant_values=-1))
            filter_, tap, column, weight = (
                filter_ + padded,
                tap + one["taps"],
                column + len(own),
                weight + padded * one["taps"],
            )
        self.parts = table
        self.columns, self.rows = (np.concatenate(v).astype(np.int64) for v in (columns, rows))
        groups = [p // parts for p in range(g.groups * parts)]
        self.taps = np.concatenate([tap_numbers(g, q, c) for q, c in zip(groups, pieces)])
        self.values = aligned_zeros(weight + unit.lanes)
        self.zeros = aligned_zeros(self.tile.filters + unit.lanes)
        vectors = int(self.chunks["vectors"].max())
        pitch = 4 * vectors * unit.lanes
        self.targets = np.arange(most + self.tile.filters, dtype=np.int64) * pitch
        self.dy_table = np.stack([self.rows * 4 * g.out_h * g.out_w, np.zeros_like(self.rows)], axis=1)
        self.masks = np.concatenate([_tail_mask(unit, int(c["pixels"]), vectors) for c in self.chunks])
        self.col_size = (most * vectors + 2) * unit.lanes
        self.dy_size = (max(len(f) for f in rows) * vectors + 2) * unit.lanes
        self.tiles = tile_table(unit, self.tile, self.chunks)
        self.numbers = record(
            parts=len(table), channels=g.channels, height=g.height, width=g.width, filters=g.filters, out_h=g.out_h,
            out_w=g.out_w, stride_h=g.stride_h, lanes=unit.lanes, tile_filters=self.tile.filters,
            tile_vectors=self.tile.vectors, pitch=pitch, fill=fill_row(unit), move=lower_same(unit),
            put=add_taps(unit, g.stride_w), taps=address(self.taps), dy_table=address(self.dy_table),
            masks=address(self.masks), mask_bytes=len(self.masks) // len(self.chunks), targets=address(self.targets),
            values=address(self.values), zeros=address(self.zeros),
        )  # fmt: skip
        self.kernel = f"kept {self.tile.filters}x{self.tile.vectors}"
        self.units = g.batch * len(self.parts)
        self.multiply_adds = g.batch * g.out_h * g.out_w * kept.weights

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        assert bias is None, "no layer adds a bias to this gradient"
        matrix = weights.reshape(len(weights), -1)
        pack_kept(matrix, self.parts, self.columns, self.rows, self.tile.filters, self.values, True)

    def _call(self) -> tuple[Any, ...]:
        blocks = Scratch("conv dy", self.dy_size), Scratch("conv col", self.col_size)
        return _run_input_grad, self.numbers, self.parts, self.chunks, self.tiles, *blocks


class KeptWeightGradLoop(WeightGradLoop):
    """The loop nest of dw of the kept weights and db of all filters; other dw are unchanged, or 0 if not accumulate.

    tile   (filters, taps) whose sums are in registers
    """

    def __init__(self, geometry: ConvGeometry, kept: SparsityPattern, unit: VectorUnit, tile: tuple[int, int]) -> None:
        g = self.geometry = geometry
        self.kept = kept
        nf, nt = tile
        most = max(len(f) + len(c) for f, c in zip(kept.filters, kept.columns)) + nf + nt
        pixels = 2 * CHUNK_BYTES // (4 * most)
        if is_same(g):
            self.chunks = vector_chunks(unit, g, max(1, pixels // unit.lanes))
        else:
            self.chunks = rows_chunks(unit, g, max(1, pixels // g.out_w))
        vectors = int(self.chunks["vectors"].max())
        fits = min(pixels // unit.lanes, MOST_VECTORS) // vectors
        self.images = max(1, min(fits, g.batch)) if len(self.chunks) == 1 else 1
        self.taps = Taps(unit, g, kept.columns)
        table = np.zeros(g.groups, GROUP)
        tap = filter_ = sums = 0
        for group, (f, c) in enumerate(zip(kept.filters, kept.columns, strict=True)):
            padded = -(-len(c) // nt) * nt
            table[group] = (len(c), tap, len(f), filter_, sums, padded, 0)
            tap, filter_, sums = tap + len(c), filter_ + len(f), sums + padded * -(-len(f) // nf) * nf
        self.groups = table
        self.sums_size = max(sums, 1)
        rows = np.concatenate([f + q * g.group_filters for q, f in enumerate(kept.filters)]).astype(np.int64)
        self.dy_table = np.stack([rows * 4 * g.out_h * g.out_w, np.zeros_like(rows)], axis=1)
        self.masks = np.concatenate([_tail_mask(unit, int(c["pixels"]), vectors) for c in self.chunks])
        lines = max(len(c) for c in kept.columns) + nt, max(len(f) for f in kept.filters) + nf
        self.sizes = [(count * (self.images * vectors + 1) + 2) * unit.lanes for count in lines]
        self.numbers = record(
            groups=g.groups, channels=g.channels, height=g.height, width=g.width, filters=g.filters, out_h=g.out_h,
            out_w=g.out_w, stride_h=g.stride_h, lanes=unit.lanes, tile_filters=nf, tile_taps=nt, images=self.images,
            same=is_same(g), mask_bytes=max(unit.lanes, 8) // 8, move=self.taps.move, taps=address(self.taps.table),
            masks=address(self.taps.masks), move_dy=lower_same(unit), dy_table=address(self.dy_table),
            dy_masks=address(self.masks), dy_mask_bytes=len(self.masks) // len(self.chunks), tile=dot_tile(unit, nf, nt),
        )  # fmt: skip
        self.kernel = f"kept dot {nf}x{nt}"
        self.multiply_adds = g.batch * g.out_h * g.out_w * kept.weights

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None, accumulate: bool) -> None:
        g = self.geometry
        units = -(-g.batch // self.images)
        threads = min(threads_for(self.multiply_adds), units)
        sums = scratch("conv weight sums", threads * self.sums_size).reshape(threads, -1)
        sums[:] = 0
        parallel(self._part, units, address(x), address(dy), sums, most=threads)
        if not accumulate:
            dw[:] = 0
        matrices = dw.reshape(g.groups, g.group_filters, g.columns)
        for group, f, c, matrix in zip(self.groups, self.kept.filters, self.kept.columns, matrices, strict=True):
            _add_sums(sums, group["weights"], group["dropped"], f, c, matrix)
        if db is not None:
            if not accumulate:
                db[:] = 0
            parallel(_add_bias, g.filters, dy.reshape(g.batch, g.filters, -1), db, most=threads_for(dy.size))

    def _part(self, u0: int, u1: int, thread: int, x: int, dy: int, sums: np.ndarray) -> None:
        col, lowered = (scratch(name, size) for name, size in zip(("conv col", "conv dy"), self.sizes))
        first, last = u0 * self.images, min(u1 * self.images, self.geometry.batch)
        _run_weight_grad(
            first, last, self.numbers, self.groups, self.chunks, address(lowered), address(col), address(sums[thread]),
            x, dy,
        )  # fmt: skip


def _tail_mask(unit: VectorUnit, pixels: int, vectors: int) -> np.ndarray:
    """Bits for the masks of lower_same: 1 for ``pixels`` pixels, 0 for the padding of the last vector."""
    flags = np.zeros((vectors, max(unit.lanes, 8)), np.uint8)
    flags[:, : unit.lanes] = (np.arange(vectors * unit.lanes) < pixels).reshape(vectors, unit.lanes)
    return np.packbits(flags, axis=1, bitorder="little").ravel()


@exact_kernel
def _run_input_grad(u0, u1, numbers, parts, chunks, tiles, lowered, col, dy, dx):
    """Computes units u0 .. u1; a unit is a part of the channels of an image."""
    n = numbers[0]
    plane = n.height * n.width * 4
    for u in range(u0, u1):
        image, part = u // n.parts, parts[u % n.parts]
        target = dx + image * n.channels * plane
        call_tile(n.fill, (n.zeros, target + part.channel * plane, part.channels * plane // 4, np.int64(0)))
        for c in range(chunks.size):
            chunk = chunks[c]
            pitch = chunk.vectors * n.lanes * 4
            call_tile(
                n.move,
                (
                    dy + (image * n.filters * n.out_h * n.out_w + chunk.pixel) * 4, n.dy_table + part.first_tap * 16,
                    part.taps, chunk.vectors, n.masks + c * n.mask_bytes, lowered, pitch,
                ),
            )  # fmt: skip
            panels = (chunk.vectors + n.tile_vectors - 1) // n.tile_vectors
            first = 0
            for panel in range(panels):
                own = (chunk.vectors + panels - 1 - panel) // panels
                for k in range(0, part.filters, n.tile_filters):
                    call_tile(
                        tiles[own],
                        (
                            n.values + (part.weights + k * part.taps) * 4, part.taps, lowered + first * n.lanes * 4,
                            pitch, n.zeros, n.targets + k * 8, col + first * n.lanes * 4, part.filters - k, n.lanes,
                            np.int64(0),
                        ),
                    )  # fmt: skip
                first += own
            call_tile(
                n.put,
                (
                    target, n.taps + part.first_dropped * 24, part.filters, n.height, n.width, chunk.top, chunk.rows,
                    n.out_w, n.stride_h, col, n.pitch,
                ),
            )  # fmt: skip


@exact_kernel
def _run_weight_grad(i0, i1, numbers, groups, chunks, lowered, col, sums, x, dy):
    """Adds images i0 .. i1 to the sums of all groups."""
    n = numbers[0]
    for image in range(i0, i1, n.images):
        images = min(n.images, i1 - image)
        for g in range(n.groups):
            group = groups[g]
            for c in range(chunks.size):
                chunk = chunks[c]
                own = chunk.vectors * n.lanes * 4
                # One more vector, because lowering writes a vector after the last pixel.
                pitch = images * own + n.lanes * 4
                for q in range(images):
                    lower(
                        n, x + (image + q) * n.channels * n.height * n.width * 4, group.first_tap, group.taps, chunk,
                        col + q * own, pitch,
                    )  # fmt: skip
                    grads = dy + ((image + q) * n.filters * n.out_h * n.out_w + chunk.pixel) * 4
                    call_tile(
                        n.move_dy,
                        (
                            grads, n.dy_table + group.first_filter * 16, group.filters, chunk.vectors,
                            n.dy_masks + c * n.dy_mask_bytes, lowered + q * own, pitch,
                        ),
                    )  # fmt: skip
                for f in range(0, group.filters, n.tile_filters):
                    for k in range(0, group.taps, n.tile_taps):
                        call_tile(
                            n.tile,
                            (
                                lowered + f * pitch, pitch, col + k * pitch, pitch, images * chunk.vectors,
                                sums + (group.weights + f * group.dropped + k) * 4, group.dropped * 4,
                            ),
                        )  # fmt: skip


@exact_kernel
def _add_sums(sums, first, padded, filters, columns, matrix):
    """matrix[filters, columns] += the sums of all threads, in the order of the threads."""
    for i in range(filters.size):
        line = matrix[filters[i]]
        for thread in range(sums.shape[0]):
            own = sums[thread, first + i * padded : first + (i + 1) * padded]
            for k in range(columns.size):
                line[columns[k]] += own[k]


@kernel
def _add_bias(f0, f1, thread, dy, db):
    """db[f] += the sum of dy over images and pixels, for the filters f0 .. f1."""
    for f in range(f0, f1):
        total = np.float32(0)
        for image in range(dy.shape[0]):
            line = dy[image, f]
            for i in range(line.size):
                total += line[i]
        db[f] += total
