"""The loop nests for unstructured zeros: each filter is a list of its non-zero weights, each a distance and a value.

In the lowered form, the pixels that a tap reads are contiguous, and the distance is that of a row of the lowered
matrix. In the direct form it is the distance of a pixel in a padded copy of the image, split by phase where the stride
is not 1; the copy's extra columns at the end of each output row are computed too and not used.

Ref: Park et al. 2017, Faster CNNs with Direct Sparse Convolutions and Guided Pruning, section 3.1
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop
from sslnet.kernels.conv.packing import SourceWindow, address, record, threads_for
from sslnet.kernels.conv.sparse.lowering import copy_rows
from sslnet.kernels.conv.sparse.microkernels import sparse_tile
from sslnet.kernels.conv.sparse.structured_pixels import (
    CHUNK_BYTES,
    Taps,
    is_same,
    lower,
    panels_of,
    rows_chunks,
    vector_chunks,
)
from sslnet.kernels.conv.taps import lower_forward
from sslnet.kernels.conv.window import fill_plane
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.kernels.runtime.recording import Scratch
from sslnet.kernels.runtime.threads import num_parts, parallel
from sslnet.kernels.simd.vector import VectorUnit, call_tile

MOST_VECTORS = 14
"""The most vectors of sums of one filter; each weight and its distance are read once for all of them."""
WINDOW_BYTES = 40 * 1024
"""The bytes aimed at for the rows of the padded image that a chunk reads, to stay in the first-level cache."""


class WeightListLoop(PackedLoop):
    """A loop nest over lists of non-zero weights: the base of LoweredLoop and DirectLoop."""

    def __init__(self, geometry: ConvGeometry, unit: VectorUnit, *, relu: bool) -> None:
        self.geometry = geometry
        self.unit = unit
        self.relu = relu
        g = geometry
        self.bias = aligned_zeros(g.filters)
        self.starts = np.zeros(g.filters + 1, np.int64)
        self.values = np.zeros(0, np.float32)
        self.distances = np.zeros(0, np.int64)
        self.multiply_adds = 0

    def _read(self, weights: np.ndarray, bias: np.ndarray | None, places: np.ndarray) -> None:
        """Lists the non-zero weights; ``places`` (groups, columns) are the distances of the columns."""
        g = self.geometry
        matrix = weights.reshape(g.filters, g.columns)
        np.cumsum(np.count_nonzero(matrix, axis=1), out=self.starts[1:])
        count = int(self.starts[-1])
        if count > len(self.values):
            self.values, self.distances = np.empty(count, np.float32), np.empty(count, np.int64)
        self.version += 1
        parallel(
            _list_weights, g.filters, np.array(matrix, copy=False), g.group_filters, places, self.starts, self.values,
            self.distances, most=threads_for(matrix.size),
        )  # fmt: skip
        self.bias[:] = 0 if bias is None else bias
        self.multiply_adds = g.batch * g.out_h * g.out_w * count


class LoweredLoop(WeightListLoop):
    """The loop nest of y = x * w + b from a lowered matrix of the columns that any filter of the group uses."""

    kernel = "lowered csr"

    def __init__(self, geometry: ConvGeometry, unit: VectorUnit, *, relu: bool = False) -> None:
        super().__init__(geometry, unit, relu=relu)
        self.used = np.zeros((geometry.groups, geometry.columns), np.bool_)
        self._plan()

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        g = self.geometry
        used = (weights.reshape(g.groups, g.group_filters, g.columns) != 0).any(axis=1)
        if not np.array_equal(used, self.used):
            self.used = used
            self._plan()
        self._read(weights, bias, self.places)

    def _plan(self) -> None:
        g, unit = self.geometry, self.unit
        columns = tuple(map(np.flatnonzero, self.used))
        counts = np.array([len(c) for c in columns])
        most = int(counts.max())
        vectors = max(1, CHUNK_BYTES // (4 * max(most, 1) * unit.lanes))
        if is_same(g):
            self.chunks = vector_chunks(unit, g, vectors if vectors < MOST_VECTORS else MOST_VECTORS)
        else:
            self.chunks = rows_chunks(unit, g, max(1, vectors * unit.lanes // g.out_w))
        widest = int(self.chunks["vectors"].max())
        # The pitch is the same for all chunks, so that a weight's distance is the same.
        pitch = 4 * widest * unit.lanes
        self.places = (np.cumsum(self.used, axis=1) - 1) * pitch
        self.taps = Taps(unit, g, columns)
        self.first_taps = np.stack([np.cumsum(counts) - counts, counts], axis=1)
        self.col_size = (most * widest + 2) * unit.lanes
        self.tiles = _tiles(unit, self.chunks["vectors"].tolist())
        self.units = g.batch * g.groups * len(self.chunks)
        self.numbers = record(
            groups=g.groups, channels=g.channels, height=g.height, width=g.width, filters=g.filters, out_h=g.out_h,
            out_w=g.out_w, group_filters=g.group_filters, stride_h=g.stride_h, lanes=unit.lanes, same=is_same(g),
            mask_bytes=max(unit.lanes, 8) // 8, pitch=pitch, relu=self.relu, most_vectors=MOST_VECTORS,
            move=self.taps.move, taps=address(self.taps.table), masks=address(self.taps.masks), bias=address(self.bias),
        )  # fmt: skip

    def _call(self) -> tuple[Any, ...]:
        return (
            _run_lowered, self.numbers, self.first_taps, self.chunks, self.tiles, self.starts, address(self.values),
            address(self.distances), Scratch("conv col", self.col_size),
        )  # fmt: skip


class DirectLoop(WeightListLoop):
    """The loop nest of y = x * w + b from a padded copy of the image."""

    kernel = "direct sparse"

    def __init__(self, geometry: ConvGeometry, unit: VectorUnit, *, relu: bool = False) -> None:
        super().__init__(geometry, unit, relu=relu)
        g = geometry
        low = lower_forward(g)
        whole = SourceWindow(low, g.out_h, split=True, in_place=False)
        row_bytes = max(1, whole.channel_bytes * g.group_channels // g.out_h)
        rows = min(g.out_h, max(1, WINDOW_BYTES // row_bytes, -(-MOST_VECTORS * unit.lanes // whole.plane_columns)))
        if g.batch * g.groups < num_parts():
            rows = min(rows, -(-g.out_h * g.batch * g.groups // num_parts()))
        self.rows = -(-g.out_h // -(-g.out_h // rows))
        window = self.window = SourceWindow(low, self.rows, split=True, in_place=False)
        taps = low.passes[0]
        self.places = np.zeros((g.groups, g.columns), np.int64)
        for group, (weights, offsets) in enumerate(zip(taps.weights, window.offsets(taps), strict=True)):
            self.places[group, weights - group * g.group_filters * g.columns] = offsets
        self.used = np.ones((g.groups, g.group_channels), np.uint8)
        chunks = {min(self.rows, g.out_h - top) for top in range(0, g.out_h, self.rows)}
        columns = window.plane_columns
        self.tiles = _tiles(unit, [self._vectors(rows) for rows in chunks])
        self.line_size = (self._vectors(self.rows) + 1) * unit.lanes
        self.units = g.batch * g.groups * -(-g.out_h // self.rows)
        self.numbers = record(
            groups=g.groups, channels=g.group_channels, height=g.height, width=g.width, filters=g.group_filters,
            out_h=g.out_h, out_w=g.out_w, stride_h=g.stride_h, lanes=unit.lanes, rows=self.rows, relu=relu,
            most_vectors=MOST_VECTORS, first_row=window.first_row, first_column=window.first_column,
            step_h=window.step_h, step_w=window.step_w, plane_rows=window.plane_rows, plane_columns=columns,
            plane_bytes=window.plane_bytes, channel_bytes=window.channel_bytes, fill=fill_plane(unit),
            copy=copy_rows(unit), bias=address(self.bias),
        )  # fmt: skip

    def _vectors(self, rows: int) -> int:
        """The number of vectors of ``rows`` output rows, as they lie in the window."""
        return -(-((rows - 1) * self.window.plane_columns + self.geometry.out_w) // self.unit.lanes)

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        g = self.geometry
        by_channel = weights.reshape(g.groups, g.group_filters, g.group_channels, -1)
        self.used[:] = (by_channel != 0).any(axis=(1, 3))
        self._read(weights, bias, self.places)

    def _call(self) -> tuple[Any, ...]:
        return (
            _run_direct, self.numbers, self.used, self.tiles, self.starts, address(self.values), address(self.distances),
            Scratch("conv window", self.window.size + self.unit.lanes), Scratch("conv line", self.line_size),
        )  # fmt: skip


def _tiles(unit: VectorUnit, vectors: list[int]) -> np.ndarray:
    """Addresses of the micro-kernels, by the number of vectors of a panel."""
    table = np.zeros(MOST_VECTORS + 1, np.int64)
    for panel in {v for count in set(vectors) for v in panels_of(count, MOST_VECTORS)}:
        table[panel] = sparse_tile(unit, panel)
    return table


@kernel
def _list_weights(f0, f1, thread, matrix, group_filters, places, starts, values, distances):
    """Lists the non-zero weights of filters f0 .. f1 and their distances."""
    for f in range(f0, f1):
        line, place, at = matrix[f], places[f // group_filters], starts[f]
        for k in range(line.size):
            if line[k] != 0:
                values[at] = line[k]
                distances[at] = place[k]
                at += 1


@exact_kernel
def _run_lowered(u0, u1, numbers, group_taps, chunks, tiles, starts, values, distances, col, source, target):
    """Computes units u0 .. u1; a unit is a chunk of a group of an image."""
    n = numbers[0]
    pixels = n.out_h * n.out_w
    for u in range(u0, u1):
        image, rest = u // (n.groups * chunks.size), u % (n.groups * chunks.size)
        group, chunk = rest // chunks.size, chunks[rest % chunks.size]
        plane = source + image * n.channels * n.height * n.width * 4
        lower(n, plane, group_taps[group, 0], group_taps[group, 1], chunk, col, n.pitch)
        panels = (chunk.vectors + n.most_vectors - 1) // n.most_vectors
        first = 0
        for panel in range(panels):
            own = (chunk.vectors + panels - 1 - panel) // panels
            last = min(n.lanes, chunk.pixels - (first + own - 1) * n.lanes)
            for f in range(group * n.group_filters, (group + 1) * n.group_filters):
                call_tile(
                    tiles[own],
                    (
                        values + starts[f] * 4, distances + starts[f] * 8, starts[f + 1] - starts[f],
                        col + first * n.lanes * 4, n.bias + f * 4,
                        target + ((image * n.filters + f) * pixels + chunk.pixel + first * n.lanes) * 4, last, n.relu,
                    ),
                )  # fmt: skip
            first += own


@exact_kernel
def _run_direct(u0, u1, numbers, used, tiles, starts, values, distances, window, line, source, target):
    """Computes units u0 .. u1; a unit is a chunk of rows of a group of an image."""
    n = numbers[0]
    chunks = (n.out_h + n.rows - 1) // n.rows
    for u in range(u0, u1):
        image, rest = u // (n.groups * chunks), u % (n.groups * chunks)
        group, top = rest // chunks, rest % chunks * n.rows
        rows = min(n.rows, n.out_h - top)
        window_rows = n.plane_rows - (n.rows - rows) * n.stride_h // n.step_h
        for c in range(n.channels):
            if used[group, c]:
                channel = source + ((image * n.groups + group) * n.channels + c) * n.height * n.width * 4
                call_tile(
                    n.fill,
                    (
                        channel, n.height, n.width, window + c * n.channel_bytes, n.plane_bytes,
                        n.first_row + top * n.stride_h, n.first_column, n.step_h, n.step_w, window_rows,
                        n.plane_columns,
                    ),
                )  # fmt: skip
        vectors = ((rows - 1) * n.plane_columns + n.out_w + n.lanes - 1) // n.lanes
        panels = (vectors + n.most_vectors - 1) // n.most_vectors
        for i in range(n.filters):
            f = group * n.filters + i
            first = 0
            for panel in range(panels):
                own = (vectors + panels - 1 - panel) // panels
                call_tile(
                    tiles[own],
                    (
                        values + starts[f] * 4, distances + starts[f] * 8, starts[f + 1] - starts[f],
                        window + first * n.lanes * 4, n.bias + f * 4, line + first * n.lanes * 4, n.lanes, n.relu,
                    ),
                )  # fmt: skip
                first += own
            y = target + (((image * n.groups * n.filters + f) * n.out_h + top) * n.out_w) * 4
            call_tile(n.copy, (line, n.plane_columns * 4, rows, n.out_w, y, n.out_w * 4))
