"""Packing of pixels for convolutions with zeros: rows of the lowered matrix, and results back to their places.

    lower_taps    one row of the lowered matrix for each tap: the pixels that it reads, side by side
    lower_same    the same where a tap is one shift of the whole plane
    add_taps      the adjoint of lower_taps: adds rows of the lowered matrix back to their pixels
    copy_rows     copies rows of a padded plane to contiguous rows
    fill_row      fills a row with one number

How such functions are made and called: ``simd.tile``. Distances are in bytes.
Patterns of zeros are arguments of these functions: a new pattern needs no compilation.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sslnet.kernels.runtime.compiler import c_function
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions, tile
from sslnet.kernels.simd.vector import I64, VectorUnit, integer_at

TAP = 3
"""The number of entries of a tap in a table: distance of its channel's plane, its row and column for output pixel 0."""


@cache
def lower_taps(unit: VectorUnit, step: int) -> int:
    """col[tap, row * columns + column] = the pixel that the tap reads there, 0 in the padding.

    (source, table, taps, height, width, top, rows, columns, row_step, col, pitch)
    table      (taps, 3) int64: see TAP
    top, rows  first output row, and number of output rows
    columns    columns of an output row; the source is read every ``step`` columns and every row_step rows
    col        pitch from one tap to the next; the vector after the last pixel is set to zero
    """
    lanes = unit.lanes
    phased = min(step, 3)

    @c_function
    def lower(source, table, taps, height, width, top, rows, columns, row_step, col, pitch):
        for tap in range(taps):
            entry = table + tap * 24
            first = top * row_step + integer_at(entry + 8)
            column = integer_at(entry + 16)
            plane = source + integer_at(entry)
            target = col + tap * pitch
            before, inside = _rows_inside(first, row_step, rows, height)
            for i in range(0, before * columns, lanes):
                _store_zeros(lanes, target + i * 4)
            line = plane + ((first + before * row_step) * width + column) * 4
            for i in range(0, columns, lanes):
                # The last vector of a row ends at the end of the row if possible, so that nothing beyond is written.
                at = min(i, max(columns - lanes, 0))
                _lower_block(
                    lanes, phased, line + at * step * 4, row_step * width * 4, inside,
                    target + (before * columns + at) * 4, columns * 4,
                    -(column + at * step), width - (column + at * step), step,
                )  # fmt: skip
            for i in range((before + inside) * columns, rows * columns, lanes):
                _store_zeros(lanes, target + i * 4)
            # The padding of the last vector is zero, because products are summed over it.
            _store_zeros(lanes, target + rows * columns * 4)

    return lower


@tile
def lower_same(builder, lanes, source, table, taps, vectors, masks, col, pitch):
    """As lower_taps, for stride 1 and output rows as long as source rows: a tap is then one shift of the plane.

    table    (taps, 2) int64: distance of the pixel for output pixel 0, and of the tap's masks from ``masks``
    vectors  number of vectors of output pixels
    masks    one bit a pixel, max(lanes, 8) bits a vector: 1 where the tap reads a pixel, 0 where it reads padding
    """
    bits = ir.IntType(max(lanes, 8))
    size, step = 4 * lanes, max(lanes, 8) // 8

    def tap(state):
        entry, target = state
        line = builder.add(source, builder.load(vec.at(builder, entry, I64)))
        bits_at = builder.add(masks, builder.load(vec.at(builder, vec.offset(builder, entry, 8), I64)))

        def some(count):
            def block(state):
                line, bits_at, out = state
                for v in range(count):
                    flags = builder.load(vec.at(builder, vec.offset(builder, bits_at, step * v), bits))
                    flags = builder.trunc(flags, ir.IntType(lanes)) if lanes < 8 else flags
                    mask = builder.bitcast(flags, ir.VectorType(vec.I1, lanes))
                    values = vec.masked_load(builder, lanes, vec.offset(builder, line, size * v), mask)
                    vec.store(builder, values, vec.offset(builder, out, size * v), size)
                steps = ((line, size), (bits_at, step), (out, size))
                return [vec.offset(builder, place, own * count) for place, own in steps]

            return block

        places = vec.counted_loop(builder, fours, [line, bits_at, target], some(4))
        vec.counted_loop(builder, rest, places, some(1))
        return [vec.offset(builder, entry, 16), builder.add(target, pitch)]

    fours, rest = builder.ashr(vectors, I64(2)), builder.and_(vectors, I64(3))
    vec.counted_loop(builder, taps, [table, col], tap)


@cache
def add_taps(unit: VectorUnit, step: int) -> int:
    """target[the pixel that the tap reads] += col[tap, row * columns + column], without the padding.

    (target, table, taps, height, width, top, rows, columns, row_step, col, pitch)
    The arguments are those of lower_taps; up to a vector after a tap's last pixel must be readable.
    """
    lanes = unit.lanes
    phased = min(step, 2)

    @c_function
    def add(target, table, taps, height, width, top, rows, columns, row_step, col, pitch):
        for tap in range(taps):
            entry = table + tap * 24
            first = top * row_step + integer_at(entry + 8)
            column = integer_at(entry + 16)
            before, inside = _rows_inside(first, row_step, rows, height)
            line = target + integer_at(entry) + ((first + before * row_step) * width + column) * 4
            source = col + tap * pitch + before * columns * 4
            for at in range(0, columns, lanes):
                _add_block(
                    lanes, phased, source + at * 4, columns * 4, inside, line + at * step * 4,
                    row_step * width * 4, -(column + at * step), width - (column + at * step), columns - at, step,
                )  # fmt: skip

    return add


@cache
def copy_rows(unit: VectorUnit) -> int:
    """target[row, column] = source[row, column]; nothing beyond the target's columns is written.

    (source, source_step, rows, columns, target, target_step)
    The source must be readable up to a vector beyond each row.
    """
    lanes = unit.lanes

    @c_function
    def copy(source, source_step, rows, columns, target, target_step):
        for i in range(0, columns, lanes):
            at = min(i, max(columns - lanes, 0))
            _copy_block(lanes, source + at * 4, source_step, rows, target + at * 4, target_step, min(columns, lanes))

    return copy


@tile
def fill_row(builder, lanes, value, target, count, relu):
    """target[i] = the float at ``value`` for 0 <= i < count, at least 0 if relu."""
    values = vec.at_least(builder, vec.broadcast(builder, lanes, value), vec.least_value(builder, lanes, relu))

    def whole(state):
        vec.store(builder, values, state[0])
        return [vec.offset(builder, state[0], 4 * lanes)]

    (end,) = vec.counted_loop(builder, builder.sdiv(count, I64(lanes)), [target], whole)
    vec.masked_store(builder, values, end, vec.first_lanes(builder, lanes, builder.srem(count, I64(lanes))))


@intrinsic
def _rows_inside(typingctx, first, step, rows, height):
    """The number of rows before row 0, and of those inside ``height``, of ``rows`` rows ``step`` apart from ``first``
    on."""

    def codegen(context, builder, signature, args):
        first, step, rows, height = args
        zero = I64(0)

        def at_least(a, b):
            return builder.select(builder.icmp_signed(">", a, b), a, b)

        def at_most(a, b):
            return builder.select(builder.icmp_signed("<", a, b), a, b)

        def up(value):
            # A division takes as long as copying several rows; the common step 1 needs none.
            one = builder.icmp_signed("==", step, I64(1))

            def divided():
                return [builder.sdiv(builder.add(value, builder.sub(step, I64(1))), step)]

            return vec.either(builder, one, lambda: [value], divided, I64)[0]

        before = at_most(rows, up(at_least(builder.neg(first), zero)))
        end = at_most(rows, up(at_least(builder.sub(height, first), zero)))
        inside = at_least(builder.sub(end, before), zero)
        return context.make_tuple(builder, signature.return_type, [before, inside])

    return types.UniTuple(types.int64, 2)(*[types.int64] * 4), codegen


@instructions
def _store_zeros(builder, lanes, target):
    vec.store(builder, vec.zeros(lanes), target)


@instructions
def _lower_block(builder, lanes, line, line_step, rows, target, target_step, low, high, step, *, phased):
    """For one vector of each row: target[i] = line[i * step] for the lanes low <= i * step < high, 0 for the others.

    phased   the step if it is 1 or 2, else 3
    """
    if phased == 3:
        read = _strided_reader(builder, lanes, low, high, step)
        _each_row(builder, rows, line, line_step, target, target_step, read)
        return
    masks = [_between(builder, lanes, low, high, lanes * i) for i in range(phased)]
    whole = builder.and_(builder.icmp_signed("<=", low, I64(0)), builder.icmp_signed(">=", high, I64(lanes * phased)))

    def plain(source):
        return [vec.load(builder, lanes, vec.offset(builder, source, 4 * lanes * i)) for i in range(phased)]

    def masked(source):
        return [
            vec.masked_load(builder, lanes, vec.offset(builder, source, 4 * lanes * i), mask)
            for i, mask in enumerate(masks)
        ]

    def joined(values):
        return values[0] if phased == 1 else vec.even_lanes(builder, *values)

    with builder.if_else(whole) as (full, part):
        with full:
            _each_row(builder, rows, line, line_step, target, target_step, lambda s: joined(plain(s)))
        with part:
            _each_row(builder, rows, line, line_step, target, target_step, lambda s: joined(masked(s)))


@instructions
def _add_block(builder, lanes, source, source_step, rows, line, line_step, low, high, left, step, *, phased):
    """line[i * step] += source[i] in each row, for the lanes low <= i * step < high with i < left.

    phased   1 if the step is 1, else 2
    """

    def row(state):
        source, line = state
        values = vec.load(builder, lanes, source)
        if phased == 1:
            mask = builder.and_(_between(builder, lanes, low, high, 0), vec.first_lanes(builder, lanes, left))
            total = builder.fadd(values, vec.masked_load(builder, lanes, line, mask))
            vec.masked_store(builder, total, line, mask)
        else:
            _add_strided(builder, lanes, values, line, low, high, left, step)
        return [builder.add(source, source_step), builder.add(line, line_step)]

    vec.counted_loop(builder, rows, [source, line], row)


@instructions
def _copy_block(builder, lanes, source, source_step, rows, target, target_step, count):
    """Copies the first ``count`` lanes of one vector of each row."""
    mask = vec.first_lanes(builder, lanes, count)

    def row(state):
        vec.masked_store(builder, vec.load(builder, lanes, state[0]), state[1], mask)
        return [builder.add(state[0], source_step), builder.add(state[1], target_step)]

    vec.counted_loop(builder, rows, [source, target], row)


def _each_row(builder, rows, line, line_step, target, target_step, read):
    """Stores the vector ``read`` returns for every line."""

    def row(state):
        vec.store(builder, read(state[0]), state[1])
        return [builder.add(state[0], line_step), builder.add(state[1], target_step)]

    vec.counted_loop(builder, rows, [line, target], row)


def _between(builder, lanes, low, high, first):
    """The mask of the lanes i with low <= first + i < high."""
    below = vec.first_lanes(builder, lanes, builder.sub(low, I64(first)))
    return builder.and_(builder.not_(below), vec.first_lanes(builder, lanes, builder.sub(high, I64(first))))


def _inside(builder, low, high, i, step):
    """(whether low <= i * step < high, i * step)."""
    at = builder.mul(step, I64(i))
    return builder.and_(builder.icmp_signed(">=", at, low), builder.icmp_signed("<", at, high)), at


def _strided_reader(builder, lanes, low, high, step):
    """A function that reads the lanes inside one by one."""

    def read(source):
        result = vec.zeros(lanes)
        for i in range(lanes):
            inside, at = _inside(builder, low, high, i, step)
            place = builder.add(source, builder.mul(at, I64(4)))
            (value,) = vec.either(
                builder,
                inside,
                lambda place=place: [builder.load(vec.at(builder, place, vec.F32))],
                lambda: [vec.F32(0.0)],
                vec.F32,
            )
            result = builder.insert_element(result, value, ir.Constant(vec.I32, i))
        return result

    return read


def _add_strided(builder, lanes, values, line, low, high, left, step):
    """Adds the lanes inside one by one."""
    for i in range(lanes):
        inside, at = _inside(builder, low, high, i, step)
        counted = builder.and_(inside, builder.icmp_signed("<", I64(i), left))
        with builder.if_then(counted):
            place = vec.at(builder, builder.add(line, builder.mul(at, I64(4))), vec.F32)
            value = builder.extract_element(values, ir.Constant(vec.I32, i))
            builder.store(builder.fadd(builder.load(place), value), place)
