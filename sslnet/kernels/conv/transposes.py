"""Packing through square transposes, between NCHW and the layout of the micro-kernels, with filters side by side.

How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from sslnet.kernels.runtime.compiler import c_function
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions
from sslnet.kernels.simd.vector import I64, VectorUnit


@cache
def store_tile(unit: VectorUnit) -> int:
    """Writes sums (pixels, vectors * lanes) to NCHW, y[filter, pixel], with ReLU if relu is 1.

    (sums, vectors, pixels, y, y_step, filters, relu)
    y_step    from one filter to the next, in y
    filters   how many are stored; sums must be readable for the next multiple of lanes pixels
    """
    lanes = unit.lanes

    @c_function
    def store(sums, vectors, pixels, y, y_step, filters, relu):
        size = 4 * lanes
        for v in range(vectors):
            for p in range(0, pixels, lanes):
                _store_transposed(
                    lanes, sums + (p * vectors + v) * size, vectors * size, y + v * lanes * y_step + p * 4,
                    y_step, pixels - p, filters - v * lanes, relu,
                )  # fmt: skip

    return store


@cache
def load_transposed(unit: VectorUnit) -> int:
    """Transposes dy (filters, pixels) to target (pixels, padded filters); padding filters are zero.

    (dy, dy_step, filters, pixels, target, padded)
    dy_step   from one filter to the next, in dy
    padded    filters of target, a multiple of lanes; pixels are filled up with zeros to a multiple of lanes
    """
    lanes = unit.lanes

    @c_function
    def load(dy, dy_step, filters, pixels, target, padded):
        for f in range(0, padded, lanes):
            for p in range(0, pixels, lanes):
                load_square(
                    lanes, dy + f * dy_step + p * 4, dy_step, target + (p * padded + f) * 4, padded * 4,
                    pixels - p, filters - f,
                )  # fmt: skip

    return load


@cache
def scatter_transposed(unit: VectorUnit) -> int:
    """target[places[column]] = a vector of source[row, column] over the rows; lanes without a row are zero.

    (source, source_step, rows, columns, places, target, target_step)
    rows     at most lanes are taken
    places   (columns,) int64: the vector of target for each column; negative: none
    """
    lanes = unit.lanes

    @c_function
    def scatter(source, source_step, rows, columns, places, target, target_step):
        if source_step == 4 and columns == 1:  # the rows are contiguous: no transpose
            _scatter_one(lanes, source, rows, places, target, target_step)
        else:
            for column in range(0, columns, lanes):
                _scatter_transposed(
                    lanes, source + column * 4, source_step, columns - column, rows, places + column * 8,
                    target, target_step,
                )  # fmt: skip

    return scatter


@cache
def add_rows(unit: VectorUnit) -> int:
    """sums[filter] += sum over pixels of source[pixel, filter].

    (source, pixels, padded, sums)
    padded   filters, a multiple of lanes
    """
    lanes = unit.lanes

    @c_function
    def add(source, pixels, padded, sums):
        for f in range(0, padded, lanes):
            _add_rows(lanes, source + f * 4, padded * 4, pixels // 4, pixels % 4, sums + f * 4)

    return add


@cache
def add_transposed(unit: VectorUnit) -> int:
    """dw[filter, tap] += sum over threads of sums[thread, tap, filter], in the order of the threads.

    (sums, thread_step, threads, tap_step, dw, filters, taps, overwrite)
    tap_step    from one tap to the next, in sums; the sums of lanes filters lie side by side, readable for the next
                multiple of lanes taps
    filters     at most lanes
    overwrite   1: dw = instead of dw +=
    """
    lanes = unit.lanes

    @c_function
    def add(sums, thread_step, threads, tap_step, dw, filters, taps, overwrite):
        for tap in range(0, taps, lanes):
            for thread in range(threads):
                _add_transposed(
                    lanes, sums + thread * thread_step + tap * tap_step, tap_step, dw + tap * 4, taps * 4,
                    taps - tap, filters, 0 if overwrite != 0 and thread == 0 else 1,
                )  # fmt: skip

    return add


@instructions
def _store_transposed(builder, lanes, source, source_step, target, target_step, columns, rows, relu):
    """Transposes a square of source, with ReLU if relu, and stores its first ``rows`` rows and ``columns`` columns."""
    least = vec.least_value(builder, lanes, relu)
    square = [
        vec.at_least(builder, vec.load(builder, lanes, vec.line(builder, source, source_step, i)), least)
        for i in range(lanes)
    ]
    square = vec.transpose(builder, square)
    whole = builder.and_(builder.icmp_signed(">=", rows, I64(lanes)), builder.icmp_signed(">=", columns, I64(lanes)))
    with builder.if_else(whole) as (full, part):
        with full:
            for i, values in enumerate(square):
                vec.store(builder, values, vec.line(builder, target, target_step, i))
        with part:
            mask = vec.first_lanes(builder, lanes, columns)
            for i, values in enumerate(square):
                with builder.if_then(builder.icmp_signed("<", I64(i), rows)):
                    vec.masked_store(builder, values, vec.line(builder, target, target_step, i), mask)


@instructions
def load_square(builder, lanes, source, source_step, target, target_step, columns, rows):
    """Transposes the first ``rows`` rows and ``columns`` columns of a square of source, zero beyond, and stores it
    whole."""
    square = _part_of_square(builder, lanes, source, source_step, columns, rows)
    for i, values in enumerate(vec.transpose(builder, square)):
        vec.store(builder, values, vec.line(builder, target, target_step, i), 4 * lanes)


@instructions
def _scatter_transposed(builder, lanes, source, source_step, columns, rows, places, target, target_step):
    """Stores the first ``columns`` columns of a square of source, over its first ``rows`` rows, at their places."""
    square = _part_of_square(builder, lanes, source, source_step, columns, rows)
    for i, values in enumerate(vec.transpose(builder, square)):
        with builder.if_then(builder.icmp_signed("<", I64(i), columns)):
            _store_at_place(builder, values, vec.offset(builder, places, 8 * i), target, target_step)


@instructions
def _scatter_one(builder, lanes, source, count, places, target, target_step):
    """Stores the first ``count`` floats of source, followed by zeros, at their place."""
    values = vec.masked_load(builder, lanes, source, vec.first_lanes(builder, lanes, count))
    _store_at_place(builder, values, places, target, target_step)


@instructions
def _add_transposed(builder, lanes, source, source_step, target, target_step, columns, rows, add):
    """Transposes a square of source and adds it to the first ``rows`` rows and ``columns`` columns of target, or
    replaces them."""
    square = [vec.load(builder, lanes, vec.line(builder, source, source_step, i)) for i in range(lanes)]
    square = vec.transpose(builder, square)
    columns = vec.first_lanes(builder, lanes, columns)
    held = builder.and_(columns, vec.splat(builder, lanes, builder.icmp_signed("!=", add, I64(0))))
    for i, values in enumerate(square):
        with builder.if_then(builder.icmp_signed("<", I64(i), rows)):
            address = vec.line(builder, target, target_step, i)
            total = builder.fadd(values, vec.masked_load(builder, lanes, address, held))
            vec.masked_store(builder, total, address, columns)


@instructions
def _add_rows(builder, lanes, source, step, fours, rest, target):
    """target += the sum of 4 * fours + rest vectors, ``step`` apart; four independent sums hide the latency of additions."""

    def four(state):
        line, totals = state[0], []
        for total in state[1:]:
            totals.append(builder.fadd(total, vec.load(builder, lanes, line)))
            line = builder.add(line, step)
        return [line, *totals]

    def one(state):
        line, total = state
        return [builder.add(line, step), builder.fadd(total, vec.load(builder, lanes, line))]

    line, *totals = vec.counted_loop(builder, fours, [source, *[vec.zeros(lanes)] * 4], four)
    totals[0] = vec.counted_loop(builder, rest, [line, totals[0]], one)[1]
    pairs = [builder.fadd(totals[i], totals[i + 1]) for i in (0, 2)]
    total = builder.fadd(vec.load(builder, lanes, target), builder.fadd(*pairs))
    vec.store(builder, total, target)


def _store_at_place(builder, values, where, target, target_step):
    """Stores values in target at the place whose number is at the address ``where``, unless it is negative."""
    place = builder.load(vec.at(builder, where, I64))
    with builder.if_then(builder.icmp_signed(">=", place, I64(0))):
        vec.store(builder, values, builder.add(target, builder.mul(place, target_step)))


def _part_of_square(builder, lanes, source, source_step, columns, rows):
    """The rows of a square as vectors; nothing beyond ``columns`` and ``rows`` is read."""
    whole = builder.and_(builder.icmp_signed(">=", rows, I64(lanes)), builder.icmp_signed(">=", columns, I64(lanes)))

    def full():
        return [vec.load(builder, lanes, vec.line(builder, source, source_step, i)) for i in range(lanes)]

    def part():
        square = []
        for i in range(lanes):
            counted = builder.select(builder.icmp_signed("<", I64(i), rows), columns, I64(0))
            mask = vec.first_lanes(builder, lanes, counted)
            square.append(vec.masked_load(builder, lanes, vec.line(builder, source, source_step, i), mask))
        return square

    return vec.either(builder, whole, full, part, vec.vector_type(lanes))
