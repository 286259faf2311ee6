"""The micro-kernels of the weight gradient: vector registers hold the sums of some taps over a loop of positions.

    weight_grad_tile   vectors over filters of dy, pixels of x broadcast
    pixel_grad_tile    vectors over pixels of dy and of x

How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import tile
from sslnet.kernels.simd.vector import I64


@tile
def weight_grad_tile(
    builder, lanes, dy, images, dy_step, x_step, rows, row_bytes, columns, x, row_step, line_offsets, line_places,
    sums, *, vectors, lines, taps, step, dilation, left, right,
):  # fmt: skip
    """sums[line, tap, filters] += sum over (image, row, column) of dy[.., filters] * x[line, .., tap].

    dy              (images, rows, columns, vectors * lanes), aligned; dy_step from one image to the next, row_bytes from one
                    row to the next
    x               x_step from one image to the next, row_step from one row of positions to the next, ``step`` floats from
                    one column to the next, ``dilation`` floats from one tap to the next
    line_offsets    (lines,) int64: distance of each line (channel, kernel row) from x
    line_places     (lines,) int64: distance of the line's sums (taps, vectors * lanes), aligned, from sums
    left, right     floats by which the first tap of the first column, and the last tap of the last, lie in the padding,
                    which is not read; there are more columns than those with a tap in the padding
    """
    size = 4 * lanes

    def entry(table, line):
        return builder.load(vec.at(builder, vec.offset(builder, table, 8 * line), I64))

    starts = [builder.add(x, entry(line_offsets, line)) for line in range(lines)]

    def position(state, inside):
        distance, grad, totals = state[0], state[1], list(state[2:])
        grads = [vec.load(builder, lanes, vec.offset(builder, grad, v * size), size) for v in range(vectors)]
        for line in range(lines):
            pixel = builder.add(starts[line], distance)
            for t in inside:
                value = vec.broadcast(builder, lanes, vec.offset(builder, pixel, 4 * t * dilation))
                for v in range(vectors):
                    i = (line * taps + t) * vectors + v
                    totals[i] = vec.multiply_add(builder, value, grads[v], totals[i])
        return [vec.offset(builder, distance, 4 * step), vec.offset(builder, grad, vectors * size), *totals]

    def row(state):
        now = state
        edges = [edge_columns(over, step) for over in (left, right)]
        for column in range(edges[0]):
            now = position(now, taps_inside(taps, step, dilation, left, column))
        between = builder.sub(columns, I64(sum(edges)))
        now = vec.counted_loop(builder, between, now, lambda then: position(then, range(taps)))
        for column in reversed(range(edges[1])):
            mirrored = taps_inside(taps, step, dilation, right, column)
            now = position(now, [taps - 1 - t for t in mirrored])
        return [builder.add(state[0], row_step), builder.add(state[1], row_bytes), *now[2:]]

    def image(state):
        after = vec.counted_loop(builder, rows, state, row)
        return [builder.add(state[0], x_step), builder.add(state[1], dy_step), *after[2:]]

    # The sums start at zero and are added at the end: sums over a short block of positions have small rounding errors.
    initial = [vec.zeros(lanes)] * (lines * taps * vectors)
    totals = vec.counted_loop(builder, images, [I64(0), dy, *initial], image)[2:]
    for line in range(lines):
        place = builder.add(sums, entry(line_places, line))
        for total in totals[line * taps * vectors : (line + 1) * taps * vectors]:
            vec.store(builder, builder.fadd(total, vec.load(builder, lanes, place, size)), place, size)
            place = vec.offset(builder, place, size)


def edge_columns(overhang: int, step: int) -> int:
    """The number of columns with a tap in the padding, where the outermost column reaches ``overhang`` floats into
    it."""
    return max(0, -(-overhang // step))


def taps_inside(taps: int, step: int, dilation: int, overhang: int, column: int) -> list[int]:
    """The taps, counted from the outermost, that are not in the padding, ``column`` columns from the edge."""
    return [t for t in range(taps) if column * step + t * dilation >= overhang]


@tile
def pixel_grad_tile(
    builder, lanes, dy, dy_step, rows, columns, x, row_step, offsets, sums, sums_step, bias_sums, *, filters, taps
):
    """sums[filter, tap] += sum over (row, column) of dy[filter, row, column] * x[tap's offset + row, column].

    dy          dy_step from one filter to the next; rows of ``columns`` pixels without gaps
    x           row_step from one row to the next; the pixels of a row lie side by side
    offsets     (taps,) int64
    sums        (filters, taps), sums_step from one filter to the next
    bias_sums   (filters,) += sum of dy
    """
    distances = [builder.load(vec.at(builder, vec.offset(builder, offsets, 8 * t), I64)) for t in range(taps)]
    whole_vectors = builder.sdiv(columns, I64(lanes))
    rest = builder.srem(columns, I64(lanes))
    mask = vec.first_lanes(builder, lanes, rest)

    def add(grad, pixel, totals, load):
        grads = [load(builder.add(grad, builder.mul(dy_step, I64(f)))) for f in range(filters)]
        following = [builder.fadd(total, value) for total, value in zip(totals, grads)]
        for t in range(taps):
            value = load(builder.add(pixel, distances[t]))
            for f in range(filters):
                following.append(vec.multiply_add(builder, value, grads[f], totals[len(following)]))
        return following

    def vector(state):
        following = add(state[0], state[1], state[2:], lambda where: vec.load(builder, lanes, where))
        return [vec.offset(builder, state[0], 4 * lanes), vec.offset(builder, state[1], 4 * lanes), *following]

    def row(state):
        grad, line, totals = state[0], state[1], state[2:]
        grad, pixel, *totals = vec.counted_loop(builder, whole_vectors, [grad, line, *totals], vector)
        partial = builder.icmp_signed(">", rest, I64(0))
        totals = vec.either(
            builder,
            partial,
            lambda: add(grad, pixel, totals, lambda where: vec.masked_load(builder, lanes, where, mask)),
            lambda: totals,
            vec.vector_type(lanes),
        )
        return [builder.add(grad, builder.mul(rest, I64(4))), builder.add(line, row_step), *totals]

    initial = [vec.zeros(lanes)] * (filters + filters * taps)
    totals = vec.counted_loop(builder, rows, [dy, x, *initial], row)[2:]
    for i, total in enumerate(totals):
        place = vec.offset(builder, bias_sums, 4 * i)
        if i >= filters:
            t, f = divmod(i - filters, filters)
            place = vec.offset(builder, builder.add(sums, builder.mul(sums_step, I64(f))), 4 * t)
        place = vec.at(builder, place, vec.F32)
        builder.store(builder.fadd(builder.load(place), vec.sum_lanes(builder, total)), place)
