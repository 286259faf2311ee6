"""The micro-kernels of the convolutions: vector registers hold a tile of MR x NR outputs over a loop of taps.

A tap is one weight position (channel, kernel row, kernel column). Its pixel lies at a fixed distance, its *offset*, from
the pixel of tap 0, so the lowered matrix is never written: a tile reads the (padded) image through a table of offsets,
the indirection buffer. NR counts the outputs along vectors, MR the outputs whose operand is broadcast.

Ref: Dukhan 2019, "The Indirect Convolution Algorithm"

    filter_tile   vectors over filters, pixels broadcast; any taps, any stride
    line_tile     the same for whole lines of taps: a pixel is broadcast once for all taps that read it, padding is
                  skipped
    pixel_tile    vectors over output pixels, weights broadcast; pixels side by side

How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import tile
from sslnet.kernels.simd.vector import I64, VectorUnit


@tile
def filter_tile(builder, lanes, weights, offsets, taps, x, row_step, sums, start, *, vectors, rows, pixels, step):
    """sums[row, pixel, filters] = start + sum over taps of weights[tap, filters] * x[tap's offset + row, pixel].

    weights    (taps, vectors * lanes), aligned
    offsets    (taps,) int64
    row_step   from one row of the tile to the next, in x; within a row the pixels lie ``step`` floats apart
    sums       (rows * pixels, vectors * lanes), aligned
    start      address of (vectors * lanes) first values for every pixel; 0: continue from the values in sums
    """
    size = 4 * lanes
    initial = _first_sums(builder, lanes, vectors, rows * pixels, sums, start)

    def tap(state):
        w, o, totals = state[0], state[1], state[2:]
        pixel = builder.add(x, builder.load(vec.at(builder, o, I64)))
        weight = [vec.load(builder, lanes, vec.offset(builder, w, v * size), size) for v in range(vectors)]
        following = []
        for _ in range(rows):
            for p in range(pixels):
                value = vec.broadcast(builder, lanes, vec.offset(builder, pixel, 4 * p * step))
                for v in range(vectors):
                    following.append(vec.multiply_add(builder, value, weight[v], totals[len(following)]))
            pixel = builder.add(pixel, row_step)
        return [vec.offset(builder, w, vectors * size), vec.offset(builder, o, 8), *following]

    totals = vec.counted_loop(builder, taps, [weights, offsets, *initial], tap)[2:]
    for i, total in enumerate(totals):
        vec.store(builder, total, vec.offset(builder, sums, i * size), size)


@tile
def line_tile(
    builder, lanes, weights, offsets, all_taps, x, row_step, sums, start, *,
    vectors, pixels, step, taps, spacing, low, high,
):  # fmt: skip
    """As filter_tile, for one row of pixels and lines of ``taps`` taps that lie ``spacing`` floats apart.

    all_taps    taps of all lines, as many as offsets; row_step: not used, there is one row; the others as in
                filter_tile
    low, high   source pixels are counted from the first tap of the tile's first pixel: those with low <= i < high are
                in the source, the others are padding and not read
    """
    size = 4 * lanes
    meetings = meetings_of(pixels, step, taps, spacing, low, high)
    initial = _first_sums(builder, lanes, vectors, pixels, sums, start)

    def line(state):
        w, o, totals = state[0], state[1], list(state[2:])
        pixel = builder.add(x, builder.load(vec.at(builder, o, I64)))
        weight = [vec.load(builder, lanes, vec.offset(builder, w, i * size), size) for i in range(taps * vectors)]
        for i, met in meetings:
            value = vec.broadcast(builder, lanes, vec.offset(builder, pixel, 4 * i))
            for t, p in met:
                for v in range(vectors):
                    total = totals[p * vectors + v]
                    totals[p * vectors + v] = vec.multiply_add(builder, value, weight[t * vectors + v], total)
        return [vec.offset(builder, w, taps * vectors * size), vec.offset(builder, o, 8 * taps), *totals]

    lines = builder.sdiv(all_taps, I64(taps))
    totals = vec.counted_loop(builder, lines, [weights, offsets, *initial], line)[2:]
    for i, total in enumerate(totals):
        vec.store(builder, total, vec.offset(builder, sums, i * size), size)


def line_pixels(unit: VectorUnit, vectors: int, taps: int) -> int:
    """The most pixels of a line_tile whose sums and weights of a line fit into the registers.

    One register too few is allowed where there are many: in a line of several taps one weight is then read from memory.
    """
    spare = 1 if taps > 1 and unit.registers >= 32 else -1
    registers = unit.registers + spare
    return registers // vectors - taps


def meetings_of(
    pixels: int, step: int, taps: int, spacing: int, low: int, high: int
) -> list[tuple[int, list[tuple[int, int]]]]:
    """The source pixels of a line_tile, each with the pairs (tap, output pixel) that use it."""
    meetings = []
    for i in range(low, high):
        places = [(t, *divmod(i - t * spacing, step)) for t in range(taps)]
        met = [(t, p) for t, p, rest in places if rest == 0 and 0 <= p < pixels]
        if met:
            meetings.append((i, met))
    return meetings


def _first_sums(builder, lanes, vectors, pixels, sums, start):
    """The initial sums of a tile of filters: the vectors at ``start`` for every pixel, or the values in ``sums`` if it
    is 0."""
    size = 4 * lanes

    def fresh():
        return [vec.load(builder, lanes, vec.offset(builder, start, v * size)) for v in range(vectors)] * pixels

    def held():
        return [vec.load(builder, lanes, vec.offset(builder, sums, i * size), size) for i in range(vectors * pixels)]

    return vec.either(builder, builder.icmp_signed("!=", start, I64(0)), fresh, held, vec.vector_type(lanes))


@tile
def pixel_tile(builder, lanes, weights, offsets, taps, x, places, y, y_step, bias, left, relu, *, filters, vectors):
    """y[filter, pixels] = bias[filter] + sum over taps of weights[tap, filter] * x[tap's offset + pixels], then ReLU.

    weights   (taps, filters)
    offsets   (taps,) int64
    places    (vectors, 3) int64: distance of the vector's first pixel in x and in y, and how many of its pixels are
              stored
    y_step    from one filter to the next, in y
    bias      (filters,)
    left      how many of the filters are stored
    relu      0 or 1
    """

    def place(v, field):
        return builder.load(vec.at(builder, vec.offset(builder, places, 24 * v + 8 * field), I64))

    pixels = [builder.add(x, place(v, 0)) for v in range(vectors)]
    targets = [builder.add(y, place(v, 1)) for v in range(vectors)]
    counts = [place(v, 2) for v in range(vectors)]
    initial = []
    for f in range(filters):
        initial += [vec.broadcast(builder, lanes, vec.offset(builder, bias, 4 * f))] * vectors

    def tap(state):
        w, o, totals = state[0], state[1], state[2:]
        distance = builder.load(vec.at(builder, o, I64))
        values = [vec.load(builder, lanes, builder.add(pixel, distance)) for pixel in pixels]
        following = []
        for f in range(filters):
            weight = vec.broadcast(builder, lanes, vec.offset(builder, w, 4 * f))
            for v in range(vectors):
                following.append(vec.multiply_add(builder, weight, values[v], totals[f * vectors + v]))
        return [vec.offset(builder, w, 4 * filters), vec.offset(builder, o, 8), *following]

    totals = vec.counted_loop(builder, taps, [weights, offsets, *initial], tap)[2:]
    least = vec.least_value(builder, lanes, relu)
    totals = [vec.at_least(builder, total, least) for total in totals]
    whole = builder.icmp_signed(">=", left, I64(filters))
    for count in counts:
        whole = builder.and_(whole, builder.icmp_signed("==", count, I64(lanes)))
    with builder.if_else(whole) as (full, part):
        with full:
            for i, total in enumerate(totals):
                distance = builder.mul(y_step, I64(i // vectors))
                vec.store(builder, total, builder.add(targets[i % vectors], distance))
        with part:
            for i, total in enumerate(totals):
                counted = builder.select(builder.icmp_signed("<", I64(i // vectors), left), counts[i % vectors], I64(0))
                distance = builder.mul(y_step, I64(i // vectors))
                mask = vec.first_lanes(builder, lanes, counted)
                vec.masked_store(builder, total, builder.add(targets[i % vectors], distance), mask)
