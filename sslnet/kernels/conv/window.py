"""Packing of pixels: planes into padded windows (the packed A blocks), and phases of outputs interleaved into planes.

How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from numba import njit, types
from numba.extending import intrinsic

from sslnet.kernels.runtime.compiler import c_function
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions
from sslnet.kernels.simd.vector import I64, VectorUnit, integer_at


@cache
def fill_plane(unit: VectorUnit) -> int:
    """Fills the window of one channel, split into step_h * step_w planes by phase; zero outside the channel.

    (source, height, width, target, plane_step, first_row, first_column, step_h, step_w, rows, columns)

    plane (a, b) at (row, column) = source[first_row + row * step_h + a, first_column + column * step_w + b]

    target       (step_h, step_w) planes of (rows, columns), and one more vector, which may be overwritten
    plane_step   from one plane to the next
    """
    lanes = unit.lanes

    @c_function
    def fill(source, height, width, target, plane_step, first_row, first_column, step_h, step_w, rows, columns):
        for phase in range(step_h * step_w):
            low = first_column + phase % step_w
            plane = target + phase * plane_step
            for row in range(rows):
                source_row = first_row + row * step_h + phase // step_w
                inside = width if 0 <= source_row < height else 0
                line = source + (source_row * width + low) * 4
                if step_w == 1:
                    for column in range(0, columns, lanes):
                        start = low + column
                        _copy_inside(lanes, plane + column * 4, line + column * 4, -start, inside - start)
                elif step_w == 2:
                    for column in range(0, columns, lanes):
                        start = low + 2 * column
                        _copy_even(lanes, plane + column * 4, line + column * 8, -start, inside - start)
                else:
                    for column in range(columns):
                        at = low + column * step_w
                        _copy_one(plane + column * 4, line + column * step_w * 4, 0 <= at < inside)
                plane += columns * 4

    return fill


@cache
def fetch_ahead(unit: VectorUnit) -> int:
    """Prefetches the cache lines of a range of memory into the second-level cache.

    (start, size): address and bytes of any range, which may be empty or unmapped
    """
    lanes = unit.lanes

    @c_function
    def fetch(start, size):
        for line in range(0, size, 64):
            _fetch(lanes, start + line)

    return fetch


@instructions
def _fetch(builder, lanes, where):
    """Prefetches the cache line at an address into the second-level cache."""
    vec.prefetch(builder, where, second_level=True)


@cache
def interleave(unit: VectorUnit) -> int:
    """Interleaves the step_h * step_w planes of every map: target[map, row * step_h + a, column * step_w + b].

    (planes, maps, places, map_rows, first, last, target, height, width, step_h, step_w)
    places        (step_h * step_w, 2) int64: where the plane (a, b) of map 0 begins, in floats from planes, and its columns
    map_rows      rows from one map to the next, in every plane; the planes begin with row ``first``
    first, last   rows of the planes that are written, as far as target has them
    target        (maps, height, width)
    """
    lanes = unit.lanes

    @c_function
    def put(planes, maps, places, map_rows, first, last, target, height, width, step_h, step_w):
        for m in range(maps):
            for row in range(first, last):
                for a in range(step_h):
                    h = row * step_h + a
                    if h < height:
                        line = target + (m * height + h) * width * 4
                        done = 0
                        if step_w == 2:
                            even = _plane_line(planes, places + a * 32, m * map_rows + row - first)
                            odd = _plane_line(planes, places + a * 32 + 16, m * map_rows + row - first)
                            while done + 2 * lanes <= width:
                                _interleave_pair(lanes, line + done * 4, even + done * 2, odd + done * 2)
                                done += 2 * lanes
                            _interleave_part(lanes, line + done * 4, even + done * 2, odd + done * 2, width - done)
                            done = width
                        for w in range(done, width):
                            place = places + (a * step_w + w % step_w) * 16
                            plane = _plane_line(planes, place, m * map_rows + row - first)
                            _copy_one(line + w * 4, plane + w // step_w * 4, True)

    return put


@njit(nogil=True)
def _plane_line(planes, place, row):
    """The address of a row of the plane whose start and number of columns are at ``place``."""
    return planes + (integer_at(place) + row * integer_at(place + 8)) * 4


@instructions
def _interleave_pair(builder, lanes, target, even, odd):
    """Writes 2 * lanes floats of target, alternately from ``even`` and ``odd``."""
    both = [vec.load(builder, lanes, even), vec.load(builder, lanes, odd)]
    for i, values in enumerate(vec.zip_lanes(builder, *both)):
        vec.store(builder, values, vec.offset(builder, target, 4 * lanes * i))


@instructions
def _interleave_part(builder, lanes, target, even, odd, count):
    """Writes ``count`` floats of target, fewer than 2 * lanes, alternately from ``even`` and ``odd``."""
    both = []
    for start, extra in ((even, 1), (odd, 0)):
        half = builder.lshr(builder.add(count, I64(extra)), I64(1))
        both.append(vec.masked_load(builder, lanes, start, vec.first_lanes(builder, lanes, half)))
    for i, values in enumerate(vec.zip_lanes(builder, *both)):
        mask = vec.first_lanes(builder, lanes, builder.sub(count, I64(i * lanes)))
        vec.masked_store(builder, values, vec.offset(builder, target, 4 * lanes * i), mask)


@instructions
def _copy_inside(builder, lanes, target, source, low, high):
    """target[i] = source[i] for the lanes low <= i < high, 0 for the others."""
    kind = vec.vector_type(lanes)
    whole = builder.and_(builder.icmp_signed("<=", low, I64(0)), builder.icmp_signed(">=", high, I64(lanes)))

    def part():
        above = builder.not_(vec.first_lanes(builder, lanes, low))
        mask = builder.and_(above, vec.first_lanes(builder, lanes, high))
        return [vec.masked_load(builder, lanes, source, mask)]

    (values,) = vec.either(builder, whole, lambda: [vec.load(builder, lanes, source)], part, kind)
    vec.store(builder, values, target)


@instructions
def _copy_even(builder, lanes, target, source, low, high):
    """target[i] = source[2 i] where low <= 2 i < high, 0 elsewhere."""
    kind = vec.vector_type(lanes)
    whole = builder.and_(builder.icmp_signed("<=", low, I64(0)), builder.icmp_signed(">=", high, I64(2 * lanes)))
    halves = (source, vec.offset(builder, source, 4 * lanes))

    def part():
        loaded = []
        for i, half in enumerate(halves):
            first, end = (builder.sub(limit, I64(i * lanes)) for limit in (low, high))
            mask = builder.and_(
                builder.not_(vec.first_lanes(builder, lanes, first)), vec.first_lanes(builder, lanes, end)
            )
            loaded.append(vec.masked_load(builder, lanes, half, mask))
        return loaded

    loaded = vec.either(builder, whole, lambda: [vec.load(builder, lanes, half) for half in halves], part, kind)
    vec.store(builder, vec.even_lanes(builder, *loaded), target)


@intrinsic
def _copy_one(typingctx, target, source, inside):
    """Copies the float at source to target, or stores 0 without reading when it is not inside."""

    def codegen(context, builder, signature, args):
        target, source, inside = args
        (value,) = vec.either(
            builder,
            inside,
            lambda: [builder.load(vec.at(builder, source, vec.F32))],
            lambda: [vec.F32(0.0)],
            vec.F32,
        )
        builder.store(value, vec.at(builder, target, vec.F32))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.boolean), codegen
