"""Packing of dense convolutions: source rows into a window (packed A), weights into panels (packed B)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sslnet.kernels.conv.taps import Pass, TapGeometry
from sslnet.kernels.conv.transposes import scatter_transposed
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.kernels.runtime.recording import recorder
from sslnet.kernels.runtime.threads import num_parts, parallel
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import VectorUnit, call_tile

WINDOW_BYTES = 384 * 1024
"""The most bytes of the source rows of a chunk: they stay in the second-level cache while all filters use them."""
LEAST_ROWS = 4
"""The least rows of a chunk whose kernel reads several rows, so that most of what is copied is used more than once."""
SMALL = 1 << 22
"""Multiply-adds below which one thread is faster than several."""
SMALL_ON_TAPE = 1 << 16
"""The same on a tape, where a barrier takes less than a microsecond."""
SMALL_PACK = 1 << 16
"""Weights below which one thread packs faster than several."""


def address(array: np.ndarray) -> int:
    """The address of the array's data; the array may be read-only."""
    return array.__array_interface__["data"][0]


def threads_for(multiply_adds: int) -> int:
    """The number of threads for a pass with that many multiply-adds: 1 for small ones, else all."""
    return 1 if multiply_adds < (SMALL if recorder() is None else SMALL_ON_TAPE) else num_parts()


@dataclass(frozen=True)
class SourceWindow:
    """The packed A block: the source rows that a chunk reads, in place if all taps lie inside, else a padded copy.

    chunk   the most output rows
    split   the copy is split into stride_h * stride_w planes, so that neighbours in the output are neighbours in a plane
    """

    lowering: TapGeometry
    chunk: int
    split: bool
    in_place: bool

    @cached_property
    def first_row(self) -> int:
        """The source row of the copy's first row when the chunk begins at output row 0."""
        return self.lowering.first_and_last("rows")[0]

    @cached_property
    def first_column(self) -> int:
        return self.lowering.first_and_last("columns")[0]

    @cached_property
    def step_h(self) -> int:
        return self.lowering.stride_h if self.split else 1

    @cached_property
    def step_w(self) -> int:
        return self.lowering.stride_w if self.split else 1

    @cached_property
    def plane_rows(self) -> int:
        low, high = self.lowering.first_and_last("rows")
        return ((self.chunk - 1) * self.lowering.stride_h + high - low) // self.step_h + 1

    @cached_property
    def plane_columns(self) -> int:
        low, high = self.lowering.first_and_last("columns")
        last = (max(p.out_w for p in self.lowering.passes) - 1) * self.lowering.stride_w
        return (last + high - low) // self.step_w + 1

    @cached_property
    def plane_bytes(self) -> int:
        return 4 * self.plane_rows * self.plane_columns

    @cached_property
    def channel_bytes(self) -> int:
        return self.step_h * self.step_w * self.plane_bytes

    @cached_property
    def row_step(self) -> int:
        """Bytes from the pixels that one output row reads to those of the next."""
        columns = self.lowering.width if self.in_place else self.plane_columns
        return 4 * columns * self.lowering.stride_h // self.step_h

    @property
    def size(self) -> int:
        """Floats of the copy, with room for whole vectors that begin inside it."""
        return 64 if self.in_place else self.lowering.channels * self.channel_bytes // 4 + 64

    def offsets(self, taps: Pass) -> np.ndarray:
        """The indirection buffer (groups, taps) int64: bytes from an output's place in the window to the tap's pixel."""
        if self.in_place:
            return 4 * ((taps.channels * self.lowering.height + taps.rows) * self.lowering.width + taps.columns)
        rows, a = np.divmod(taps.rows - self.first_row, self.step_h)
        columns, b = np.divmod(taps.columns - self.first_column, self.step_w)
        plane = (taps.channels * self.step_h + a) * self.step_w + b
        return 4 * ((plane * self.plane_rows + rows) * self.plane_columns + columns)


def window_for(
    lowering: TapGeometry, *, split: bool, whole_vectors: bool, exact: bool = False, granularity: int = 1
) -> SourceWindow:
    """The window of a loop nest.

    split           as in SourceWindow
    whole_vectors   the loop nest reads whole vectors of pixels, so that it would read beyond rows in place
    exact           the loop nest reads no padding, so the window needs none
    granularity     a chunk is a multiple of this many output rows
    """
    split = split and (lowering.stride_h > 1 or lowering.stride_w > 1)
    last = (lowering.rows - 1) * lowering.stride_h
    last_column = (max(p.out_w for p in lowering.passes) - 1) * lowering.stride_w
    inside = True
    for axis, reach, size in (("rows", last, lowering.height), ("columns", last_column, lowering.width)):
        low, high = lowering.first_and_last(axis)
        inside = inside and low >= 0 and high + reach < size
    in_place = not split and not whole_vectors and (inside or exact)
    row_bytes = 4 * lowering.channels * lowering.stride_h * max(lowering.width, lowering.out_w)
    low, high = lowering.first_and_last("rows")
    rows = max(LEAST_ROWS if high > low else 1, WINDOW_BYTES // row_bytes)
    parts = threads_for(lowering.multiply_adds)
    if lowering.batch < parts:
        rows = min(rows, -(-lowering.rows * lowering.batch // parts))
    rows = min(max(rows // granularity, 1) * granularity, -(-lowering.rows // granularity) * granularity)
    return SourceWindow(lowering, rows, split, in_place)


@dataclass(frozen=True)
class FilterBlocking:
    """Blocking of a group's filters by ``width`` (NR); the last block is narrower if ``padded`` is not a multiple."""

    width: int
    padded: int

    @property
    def count(self) -> int:
        return -(-self.padded // self.width)


class PackedWeights:
    """Packed B: panels (taps, NR filters) for each pass, group and block of filters; padding filters are zero."""

    def __init__(self, lowering: TapGeometry, blocks: FilterBlocking, unit: VectorUnit) -> None:
        self.lowering = lowering
        self.blocks = blocks
        self.lanes = unit.lanes
        sizes = [lowering.groups * blocks.padded * p.taps for p in lowering.passes]
        self.starts = np.cumsum([0, *sizes])
        self.values = aligned_zeros(int(self.starts[-1]) + unit.lanes)
        self.bias = aligned_zeros((lowering.groups, blocks.padded))
        self.places = address(self.values), address(self.bias)
        self.in_vectors = blocks.width % unit.lanes == 0
        self.runs = [Runs(p.weights, unit.lanes) for p in lowering.passes] if self.in_vectors else []
        self.scatter = scatter_transposed(unit) if self.in_vectors else 0

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        low = self.lowering
        most = 1 if weights.size < SMALL_PACK else None
        shape = (low.weight_step, low.filters, self.blocks.width, self.blocks.padded)
        for p, (start, taps) in enumerate(zip(self.starts[:-1], low.passes, strict=True)):
            values = self.values[start:]
            if self.in_vectors:
                runs, units = self.runs[p], low.groups * self.blocks.padded // self.lanes
                parallel(
                    _pack_vectors, units, runs.table, runs.places, taps.taps, *shape, self.lanes, self.scatter,
                    address(weights), address(values), most=most,
                )  # fmt: skip
            else:
                units = low.groups * self.blocks.count
                parallel(_pack_blocks, units, taps.weights, *shape, address(weights), values, most=most)
        self.bias[:, : low.filters] = 0 if bias is None else bias.reshape(low.groups, low.filters)


RUN = np.dtype([(name, np.int64) for name in ("first", "length", "begin")])


class Runs:
    """The positions of the weights of a group's first filter, as runs that are read in one piece.

    table    (groups, runs) RUN: first weight, length (0 where a group has fewer runs), where the run's places begin
    places   for every weight of a run its tap, -1 for none
    """

    def __init__(self, weights: np.ndarray, most_gap: int) -> None:
        tables, places, begin = [], [], 0
        for taps in weights:
            order = np.argsort(taps)
            sorted_taps = taps[order]
            ends = np.flatnonzero(np.diff(sorted_taps) > most_gap) + 1
            first = sorted_taps[np.concatenate([[0], ends])] if len(taps) else np.zeros(0, np.int64)
            last = sorted_taps[np.concatenate([ends - 1, [len(taps) - 1]])] if len(taps) else first
            lengths = last - first + 1
            starts = np.concatenate([[0], np.cumsum(lengths)])
            own = np.full(starts[-1], -1, np.int64)
            run = np.searchsorted(first, sorted_taps, side="right") - 1
            own[starts[run] + sorted_taps - first[run]] = order
            tables.append((first, lengths, begin + starts[:-1]))
            places.append(own)
            begin += len(own)
        self.table = np.zeros((len(tables), max(len(first) for first, *_ in tables)), RUN)
        for row, columns in zip(self.table, tables, strict=True):
            for name, values in zip(RUN.names or (), columns, strict=True):
                row[name][: len(values)] = values
        self.places = np.concatenate(places)


PASS = np.dtype([(name, np.int64) for name in ("out_h", "out_w", "taps", "weights", "offsets", "plane")])


def pass_table(low: TapGeometry, weights: PackedWeights, chunk: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The table of passes for a kernel; (passes, 2) start of each pass's plane of outputs and its columns; floats of
    the planes.

    The planes hold ``chunk`` rows of every filter, and exist only when there are several passes.
    """
    table = np.zeros(len(low.passes), PASS)
    offsets = plane = 0
    for row, (taps, start) in enumerate(zip(low.passes, weights.starts, strict=False)):
        table[row] = (taps.out_h, taps.out_w, taps.taps, start, offsets, plane)
        offsets += low.groups * taps.taps
        plane += low.filters * chunk * taps.out_w
    places = np.stack([table["plane"], table["out_w"]], axis=1)
    return table, places, plane if len(low.passes) > 1 else 0


def record(**numbers: int) -> np.ndarray:
    """Kernel parameters: named int64 values for a Numba function, which reads them as fields of element 0."""
    return np.array([tuple(int(n) for n in numbers.values())], np.dtype([(name, np.int64) for name in numbers]))


@exact_kernel
def add_bias_sums(sums, filters, db, overwrite):
    """Adds the sums (parts, groups, padded filters) over the parts, in order, to db (groups * filters,)."""
    if overwrite:
        db[:] = 0
    for part in range(sums.shape[0]):
        for group in range(sums.shape[1]):
            for f in range(filters):
                db[group * filters + f] += sums[part, group, f]


@intrinsic
def _float_at(typingctx, where):
    """The float32 at an address; an array argument would need a second compiled function for read-only arrays."""

    def codegen(context, builder, signature, args):
        return builder.load(vec.at(builder, args[0], ir.FloatType()))

    return types.float32(types.int64), codegen


@exact_kernel
def _pack_vectors(
    u0, u1, thread, table, places, taps, step, filters, width, padded, lanes, scatter, weights, packed
):  # fmt: skip
    """As _pack_blocks, for the units u0 .. u1 of lanes filters each, through square transposes."""
    vectors = padded // lanes
    for u in range(u0, u1):
        group, f = u // vectors, u % vectors * lanes
        block = f // width * width
        own = min(width, padded - block)
        target = packed + ((group * padded + block) * taps + f - block) * 4
        for r in range(table.shape[1]):
            run = table[group, r]
            call_tile(
                scatter,
                (
                    weights + (run.first + f * step) * 4, step * 4, filters - f, run.length,
                    np.int64(places.ctypes.data) + run.begin * 8, target, own * 4,
                ),
            )  # fmt: skip


@exact_kernel
def _pack_blocks(u0, u1, thread, index, step, filters, width, padded, weights, packed):
    """Packs blocks u0 .. u1: packed[group][block][tap][filter] = weights[index[group, tap] + filter * step]."""
    taps = index.shape[1]
    blocks = (padded + width - 1) // width
    for u in range(u0, u1):
        group, block = u // blocks, u % blocks
        own = min(width, padded - block * width)
        there = max(0, min(own, filters - block * width))
        start = (group * padded + block * width) * taps
        for tap in range(taps):
            first = weights + (index[group, tap] + block * width * step) * 4
            for f in range(there):
                packed[start + f] = _float_at(first + f * step * 4)
            for f in range(there, own):
                packed[start + f] = 0
            start += own
