"""The innermost loops of the weight gradient: sums of some taps held in vector registers while the positions go by.

    weight_grad_tile   vectors over filters of dy, pixels of x broadcast
    pixel_grad_tile    vectors over pixels of dy and of x

As in conv_tiles, each function returns the address of a compiled C function of int64 arguments; distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.extending import intrinsic

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import I64, REVISION, VectorUnit, compiled, literal_values


@cache
def weight_grad_tile(
    unit: VectorUnit, vectors: int, lines: int, taps: int, step: int, dilation: int, left: int, right: int
) -> int:
    """sums[line, tap, filters] += sum over (image, row, column) of dy[.., filters] * x[line, .., tap].

    (dy, images, dy_step, x_step, rows, row_bytes, columns, x, row_step, line_offsets, line_places, sums)
    dy              (images, rows, columns, vectors * lanes), aligned; dy_step from one image to the next, row_bytes from one
                    row to the next
    x               x_step from one image to the next, row_step from one row of positions to the next, ``step`` floats from
                    one column to the next, ``dilation`` floats from one tap to the next
    line_offsets    (lines,) int64: distance of each line (channel, kernel row) from x
    line_places     (lines,) int64: distance of the line's sums (taps, vectors * lanes), aligned, from sums
    left, right     floats by which the first tap of the first column, and the last tap of the last, lie in the padding: what
                    lies there is not read; the columns are more than those that meet it
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(12)
    def tile(dy, images, dy_step, x_step, rows, row_bytes, columns, x, row_step, line_offsets, line_places, sums):
        _weight_grad_tile(
            lanes, vectors, lines, taps, step, dilation, left, right, revision,
            dy, images, dy_step, x_step, rows, row_bytes, columns, x, row_step, line_offsets, line_places, sums,
        )  # fmt: skip

    return tile


def edge_columns(overhang: int, step: int) -> int:
    """Columns with a tap in the padding, on a side where the outermost one's taps reach ``overhang`` floats into it."""
    return max(0, -(-overhang // step))


def taps_inside(taps: int, step: int, dilation: int, overhang: int, column: int) -> list[int]:
    """The taps that are not in the padding, counted from the outermost, of the column that many from the edge."""
    return [t for t in range(taps) if column * step + t * dilation >= overhang]


@intrinsic(prefer_literal=True)
def _weight_grad_tile(
    typingctx, lanes, vectors, lines, taps, step, dilation, left, right, revision,
    dy, images, dy_step, x_step, rows, row_bytes, columns, x, row_step, line_offsets, line_places, sums,
):  # fmt: skip
    numbers = literal_values(lanes, vectors, lines, taps, step, dilation, left, right, revision)
    if numbers is None:
        return None
    width, nv, line_count, tap_count, column_step, tap_step, left_over, right_over, _ = numbers
    size = 4 * width

    def codegen(context, builder, signature, args):
        dy, images, dy_step, x_step, rows, row_bytes, columns, x, row_step, line_offsets, line_places, sums = args[9:]

        def entry(table, line):
            return builder.load(vec.at(builder, vec.offset(builder, table, 8 * line), I64))

        starts = [builder.add(x, entry(line_offsets, line)) for line in range(line_count)]

        def position(state, inside):
            distance, grad, totals = state[0], state[1], list(state[2:])
            grads = [vec.load(builder, width, vec.offset(builder, grad, v * size), size) for v in range(nv)]
            for line in range(line_count):
                pixel = builder.add(starts[line], distance)
                for t in inside:
                    value = vec.broadcast(builder, width, vec.offset(builder, pixel, 4 * t * tap_step))
                    for v in range(nv):
                        i = (line * tap_count + t) * nv + v
                        totals[i] = vec.multiply_add(builder, value, grads[v], totals[i])
            return [vec.offset(builder, distance, 4 * column_step), vec.offset(builder, grad, nv * size), *totals]

        def row(state):
            now = state
            edges = [edge_columns(over, column_step) for over in (left_over, right_over)]
            for column in range(edges[0]):
                now = position(now, taps_inside(tap_count, column_step, tap_step, left_over, column))
            between = builder.sub(columns, I64(sum(edges)))
            now = vec.counted_loop(builder, between, now, lambda then: position(then, range(tap_count)))
            for column in reversed(range(edges[1])):
                mirrored = taps_inside(tap_count, column_step, tap_step, right_over, column)
                now = position(now, [tap_count - 1 - t for t in mirrored])
            return [builder.add(state[0], row_step), builder.add(state[1], row_bytes), *now[2:]]

        def image(state):
            after = vec.counted_loop(builder, rows, state, row)
            return [builder.add(state[0], x_step), builder.add(state[1], dy_step), *after[2:]]

        # From zero, and added at the end: the sum of a block of positions is short, so rounding stays small.
        initial = [vec.zeros(width)] * (line_count * tap_count * nv)
        totals = vec.counted_loop(builder, images, [I64(0), dy, *initial], image)[2:]
        for line in range(line_count):
            place = builder.add(sums, entry(line_places, line))
            for total in totals[line * tap_count * nv : (line + 1) * tap_count * nv]:
                vec.store(builder, builder.fadd(total, vec.load(builder, width, place, size)), place, size)
                place = vec.offset(builder, place, size)
        return context.get_dummy_value()

    head = (lanes, vectors, lines, taps, step, dilation, left, right, revision)
    return types.void(*head, *[types.int64] * 12), codegen


@cache
def pixel_grad_tile(unit: VectorUnit, filters: int, taps: int) -> int:
    """sums[filter, tap] += sum over (row, column) of dy[filter, row, column] * x[tap's offset + row, column].

    (dy, dy_step, rows, columns, x, row_step, offsets, sums, sums_step, bias_sums)
    dy          dy_step from one filter to the next; rows of ``columns`` pixels without gaps
    x           row_step from one row to the next; the pixels of a row lie side by side
    offsets     (taps,) int64
    sums        (filters, taps), sums_step from one filter to the next
    bias_sums   (filters,) += sum of dy
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(10)
    def tile(dy, dy_step, rows, columns, x, row_step, offsets, sums, sums_step, bias_sums):
        _pixel_grad_tile(
            lanes, filters, taps, revision,
            dy, dy_step, rows, columns, x, row_step, offsets, sums, sums_step, bias_sums,
        )  # fmt: skip

    return tile


@intrinsic(prefer_literal=True)
def _pixel_grad_tile(
    typingctx, lanes, filters, taps, revision,
    dy, dy_step, rows, columns, x, row_step, offsets, sums, sums_step, bias_sums,
):  # fmt: skip
    numbers = literal_values(lanes, filters, taps, revision)
    if numbers is None:
        return None
    width, nf, nt, _ = numbers

    def codegen(context, builder, signature, args):
        dy, dy_step, rows, columns, x, row_step, offsets, sums, sums_step, bias_sums = args[4:]
        distances = [builder.load(vec.at(builder, vec.offset(builder, offsets, 8 * t), I64)) for t in range(nt)]
        whole_vectors = builder.sdiv(columns, I64(width))
        rest = builder.srem(columns, I64(width))
        mask = vec.first_lanes(builder, width, rest)

        def add(grad, pixel, totals, load):
            grads = [load(builder.add(grad, builder.mul(dy_step, I64(f)))) for f in range(nf)]
            following = [builder.fadd(total, value) for total, value in zip(totals, grads)]
            for t in range(nt):
                value = load(builder.add(pixel, distances[t]))
                for f in range(nf):
                    following.append(vec.multiply_add(builder, value, grads[f], totals[len(following)]))
            return following

        def vector(state):
            following = add(state[0], state[1], state[2:], lambda where: vec.load(builder, width, where))
            return [vec.offset(builder, state[0], 4 * width), vec.offset(builder, state[1], 4 * width), *following]

        def row(state):
            grad, line, totals = state[0], state[1], state[2:]
            grad, pixel, *totals = vec.counted_loop(builder, whole_vectors, [grad, line, *totals], vector)
            partial = builder.icmp_signed(">", rest, I64(0))
            totals = vec.either(
                builder,
                partial,
                lambda: add(grad, pixel, totals, lambda where: vec.masked_load(builder, width, where, mask)),
                lambda: totals,
                vec.vector_type(width),
            )
            return [builder.add(grad, builder.mul(rest, I64(4))), builder.add(line, row_step), *totals]

        initial = [vec.zeros(width)] * (nf + nf * nt)
        totals = vec.counted_loop(builder, rows, [dy, x, *initial], row)[2:]
        for i, total in enumerate(totals):
            place = vec.offset(builder, bias_sums, 4 * i)
            if i >= nf:
                t, f = divmod(i - nf, nf)
                place = vec.offset(builder, builder.add(sums, builder.mul(sums_step, I64(f))), 4 * t)
            place = vec.at(builder, place, vec.F32)
            builder.store(builder.fadd(builder.load(place), vec.sum_lanes(builder, total)), place)
        return context.get_dummy_value()

    return types.void(lanes, filters, taps, revision, *[types.int64] * 10), codegen
