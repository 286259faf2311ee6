"""The innermost loops of the convolutions: tiles of outputs held in vector registers while the taps go by.

A tap is one weight position (channel, kernel row, kernel column). Its pixel lies at a fixed distance, its *offset*, from
the pixel of tap 0, so the lowered matrix is never written: a tile walks a table of offsets over the (padded) image.

    filter_tile   vectors over filters, pixels broadcast; any taps, any stride
    line_tile     the same for whole lines of taps: a pixel is broadcast once for all taps that meet it, padding is skipped
    pixel_tile    vectors over output pixels, weights broadcast; pixels side by side

Each function returns the address of a compiled C function of int64 arguments, to be called through vector.call_tile;
compiling one takes about 30 ms and happens once per machine. Distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.extending import intrinsic

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import I64, REVISION, VectorUnit, compiled, literal_values


@cache
def filter_tile(unit: VectorUnit, vectors: int, rows: int, pixels: int, step: int) -> int:
    """sums[row, pixel, filters] = start + sum over taps of weights[tap, filters] * x[tap's offset + row, pixel].

    (weights, offsets, taps, x, row_step, sums, start)
    weights    (taps, vectors * lanes), aligned
    offsets    (taps,) int64
    row_step   from one row of the tile to the next, in x; within a row the pixels lie ``step`` floats apart
    sums       (rows * pixels, vectors * lanes), aligned
    start      address of (vectors * lanes) first values for every pixel; 0: go on from what sums holds
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(7)
    def tile(weights, offsets, taps, x, row_step, sums, start):
        _filter_tile(lanes, vectors, rows, pixels, step, revision, weights, offsets, taps, x, row_step, sums, start)

    return tile


@intrinsic(prefer_literal=True)
def _filter_tile(
    typingctx, lanes, vectors, rows, pixels, step, revision, weights, offsets, taps, x, row_step, sums, start
):
    numbers = literal_values(lanes, vectors, rows, pixels, step, revision)
    if numbers is None:
        return None
    width, nv, row_count, pixel_count, x_step, _ = numbers
    size = 4 * width

    def codegen(context, builder, signature, args):
        weights, offsets, taps, x, row_step, sums, start = args[6:]
        initial = _first_sums(builder, width, nv, row_count * pixel_count, sums, start)

        def tap(state):
            w, o, totals = state[0], state[1], state[2:]
            pixel = builder.add(x, builder.load(vec.at(builder, o, I64)))
            weight = [vec.load(builder, width, vec.offset(builder, w, v * size), size) for v in range(nv)]
            following = []
            for _ in range(row_count):
                for p in range(pixel_count):
                    value = vec.broadcast(builder, width, vec.offset(builder, pixel, 4 * p * x_step))
                    for v in range(nv):
                        following.append(vec.multiply_add(builder, value, weight[v], totals[len(following)]))
                pixel = builder.add(pixel, row_step)
            return [vec.offset(builder, w, nv * size), vec.offset(builder, o, 8), *following]

        totals = vec.counted_loop(builder, taps, [weights, offsets, *initial], tap)[2:]
        for i, total in enumerate(totals):
            vec.store(builder, total, vec.offset(builder, sums, i * size), size)
        return context.get_dummy_value()

    return types.void(lanes, vectors, rows, pixels, step, revision, *[types.int64] * 7), codegen


@cache
def line_tile(
    unit: VectorUnit, vectors: int, pixels: int, step: int, taps: int, spacing: int, low: int, high: int
) -> int:
    """filter_tile for one row of pixels and lines of ``taps`` taps that lie ``spacing`` floats apart.

    (weights, offsets, taps, x, row_step, sums, start): as filter_tile; taps in all, offsets of all
    low, high   of the pixels that the tile meets, counted from the first tap of its first pixel, those low <= i < high are
                in the source; the others are padding, not read
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(7)
    def tile(weights, offsets, all_taps, x, row_step, sums, start):
        _line_tile(
            lanes, vectors, pixels, step, taps, spacing, low, high, revision,
            weights, offsets, all_taps // taps, x, sums, start,
        )  # fmt: skip

    return tile


@intrinsic(prefer_literal=True)
def _line_tile(
    typingctx, lanes, vectors, pixels, step, taps, spacing, low, high, revision,
    weights, offsets, lines, x, sums, start,
):  # fmt: skip
    numbers = literal_values(lanes, vectors, pixels, step, taps, spacing, low, high, revision)
    if numbers is None:
        return None
    width, nv, pixel_count, x_step, tap_count, tap_step, first, end, _ = numbers
    size = 4 * width
    meetings = meetings_of(pixel_count, x_step, tap_count, tap_step, first, end)

    def codegen(context, builder, signature, args):
        weights, offsets, lines, x, sums, start = args[9:]
        initial = _first_sums(builder, width, nv, pixel_count, sums, start)

        def line(state):
            w, o, totals = state[0], state[1], list(state[2:])
            pixel = builder.add(x, builder.load(vec.at(builder, o, I64)))
            weight = [vec.load(builder, width, vec.offset(builder, w, i * size), size) for i in range(tap_count * nv)]
            for i, met in meetings:
                value = vec.broadcast(builder, width, vec.offset(builder, pixel, 4 * i))
                for t, p in met:
                    for v in range(nv):
                        total = totals[p * nv + v]
                        totals[p * nv + v] = vec.multiply_add(builder, value, weight[t * nv + v], total)
            return [vec.offset(builder, w, tap_count * nv * size), vec.offset(builder, o, 8 * tap_count), *totals]

        totals = vec.counted_loop(builder, lines, [weights, offsets, *initial], line)[2:]
        for i, total in enumerate(totals):
            vec.store(builder, total, vec.offset(builder, sums, i * size), size)
        return context.get_dummy_value()

    head = (lanes, vectors, pixels, step, taps, spacing, low, high, revision)
    return types.void(*head, *[types.int64] * 6), codegen


def line_pixels(unit: VectorUnit, vectors: int, taps: int) -> int:
    """The most pixels of a line_tile: their sums and all weights of a line fit into the registers.

    Of many registers one too few does no harm: in a line of several taps one weight is then read from memory each time.
    """
    spare = 1 if taps > 1 and unit.registers >= 32 else -1
    registers = unit.registers + spare
    return registers // vectors - taps


def meetings_of(
    pixels: int, step: int, taps: int, spacing: int, low: int, high: int
) -> list[tuple[int, list[tuple[int, int]]]]:
    """The source pixels of a line_tile, and the (tap, output pixel) that meet in each."""
    meetings = []
    for i in range(low, high):
        places = [(t, *divmod(i - t * spacing, step)) for t in range(taps)]
        met = [(t, p) for t, p, rest in places if rest == 0 and 0 <= p < pixels]
        if met:
            meetings.append((i, met))
    return meetings


def _first_sums(builder, width, vectors, pixels, sums, start):
    """The sums a tile of filters begins with: the vectors at start for every pixel, or what it left when start is 0."""
    size = 4 * width

    def fresh():
        return [vec.load(builder, width, vec.offset(builder, start, v * size)) for v in range(vectors)] * pixels

    def held():
        return [vec.load(builder, width, vec.offset(builder, sums, i * size), size) for i in range(vectors * pixels)]

    return vec.either(builder, builder.icmp_signed("!=", start, I64(0)), fresh, held, vec.vector_type(width))


@cache
def pixel_tile(unit: VectorUnit, filters: int, vectors: int) -> int:
    """y[filter, pixels] = bias[filter] + sum over taps of weights[tap, filter] * x[tap's offset + pixels], then ReLU.

    (weights, offsets, taps, x, places, y, y_step, bias, left, relu)
    weights   (taps, filters)
    offsets   (taps,) int64
    places    (vectors, 3) int64: distance of the vector's first pixel in x and in y, and how many of its pixels count
    y_step    from one filter to the next, in y
    bias      (filters,)
    left      how many of the filters are stored
    relu      0 or 1
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(10)
    def tile(weights, offsets, taps, x, places, y, y_step, bias, left, relu):
        _pixel_tile(lanes, filters, vectors, revision, weights, offsets, taps, x, places, y, y_step, bias, left, relu)

    return tile


@intrinsic(prefer_literal=True)
def _pixel_tile(
    typingctx, lanes, filters, vectors, revision, weights, offsets, taps, x, places, y, y_step, bias, left, relu
):
    numbers = literal_values(lanes, filters, vectors, revision)
    if numbers is None:
        return None
    width, nf, nv, _ = numbers

    def codegen(context, builder, signature, args):
        weights, offsets, taps, x, places, y, y_step, bias, left, relu = args[4:]

        def place(v, field):
            return builder.load(vec.at(builder, vec.offset(builder, places, 24 * v + 8 * field), I64))

        pixels = [builder.add(x, place(v, 0)) for v in range(nv)]
        targets = [builder.add(y, place(v, 1)) for v in range(nv)]
        counts = [place(v, 2) for v in range(nv)]
        initial = []
        for f in range(nf):
            initial += [vec.broadcast(builder, width, vec.offset(builder, bias, 4 * f))] * nv

        def tap(state):
            w, o, totals = state[0], state[1], state[2:]
            distance = builder.load(vec.at(builder, o, I64))
            values = [vec.load(builder, width, builder.add(pixel, distance)) for pixel in pixels]
            following = []
            for f in range(nf):
                weight = vec.broadcast(builder, width, vec.offset(builder, w, 4 * f))
                for v in range(nv):
                    following.append(vec.multiply_add(builder, weight, values[v], totals[f * nv + v]))
            return [vec.offset(builder, w, 4 * nf), vec.offset(builder, o, 8), *following]

        totals = vec.counted_loop(builder, taps, [weights, offsets, *initial], tap)[2:]
        least = vec.least_value(builder, width, relu)
        totals = [vec.at_least(builder, total, least) for total in totals]
        whole = builder.icmp_signed(">=", left, I64(nf))
        for count in counts:
            whole = builder.and_(whole, builder.icmp_signed("==", count, I64(width)))
        with builder.if_else(whole) as (full, part):
            with full:
                for i, total in enumerate(totals):
                    distance = builder.mul(y_step, I64(i // nv))
                    vec.store(builder, total, builder.add(targets[i % nv], distance))
            with part:
                for i, total in enumerate(totals):
                    counted = builder.select(builder.icmp_signed("<", I64(i // nv), left), counts[i % nv], I64(0))
                    distance = builder.mul(y_step, I64(i // nv))
                    mask = vec.first_lanes(builder, width, counted)
                    vec.masked_store(builder, total, builder.add(targets[i % nv], distance), mask)
        return context.get_dummy_value()

    return types.void(lanes, filters, vectors, revision, *[types.int64] * 10), codegen
