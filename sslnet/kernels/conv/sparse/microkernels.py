"""The micro-kernels of convolutions with zeros.

    kept_tile     vectors over filters, pixels broadcast in place, to scattered output channels
    panel_tile    vectors over pixels, weights broadcast, from a lowered matrix to scattered output channels
    sparse_tile   one filter, only its non-zero weights, each with a distance of its own
    dot_tile      sums of products over pixels: the gradient of kept weights

How such functions are made and called: ``simd.tile``. Distances are in bytes.
Patterns of zeros are arguments of these functions: a new pattern needs no compilation.
"""

from __future__ import annotations

from llvmlite import ir

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import tile
from sslnet.kernels.simd.vector import I64


@tile
def kept_tile(
    builder, lanes, weights, weights_step, offsets, spans, x, bias, targets, y, left, relu, ahead, ahead_step, out,
    out_step, *, vectors, pixels, step, taps, spacing, low, high,
):  # fmt: skip
    """y[target of filter, pixel] = bias[filter] + sum over taps of weights[tap, filter] * x[tap's offset, pixel], then ReLU.

    weights     (vectors, all taps, lanes), weights_step from one vector to the next, aligned
    offsets     (all taps,) int64
    spans       (taps, 2) int64: for every column of the kernel its first tap and number of taps
    x           the pixel at offset 0; pixels lie ``step`` floats apart
    bias        (vectors * lanes,)
    targets     (vectors * lanes,) int64: the distance of each filter's first pixel from y
    left        how many of the filters are stored
    ahead, out  cache lines to prefetch, one of each per tap: to be read, and to be written, by the next tiles

    taps, spacing, low, high   columns of the kernel, ``spacing`` floats apart; source pixels are counted from the first
                column of the first pixel: those with low <= i < high are in the source, the others are not read
    """
    size = 4 * lanes
    totals = [vec.load(builder, lanes, vec.offset(builder, bias, v * size)) for v in range(vectors)] * pixels
    for t in range(taps):
        met = [p for p in range(pixels) if low <= p * step + t * spacing < high]
        if not met:
            continue
        begin, count = (builder.load(vec.at(builder, vec.offset(builder, spans, 16 * t + i), I64)) for i in (0, 8))

        def tap(state, met=met):
            (w, o, ahead, out), sums = state[:4], list(state[4:])
            vec.prefetch(builder, ahead, second_level=True)
            vec.prefetch(builder, out, to_write=True)
            pixel = builder.add(x, builder.load(vec.at(builder, o, I64)))
            lines = [vec.line(builder, w, weights_step, v) for v in range(vectors)]
            weight = [vec.load(builder, lanes, line, size) for line in lines]
            for p in met:
                value = vec.broadcast(builder, lanes, vec.offset(builder, pixel, 4 * p * step))
                for v in range(vectors):
                    sums[p * vectors + v] = vec.multiply_add(builder, value, weight[v], sums[p * vectors + v])
            places = vec.offset(builder, w, size), vec.offset(builder, o, 8)
            return [*places, builder.add(ahead, ahead_step), builder.add(out, out_step), *sums]

        w, o = (builder.add(start, builder.mul(begin, I64(s))) for start, s in ((weights, size), (offsets, 8)))
        ahead, out, *totals = vec.counted_loop(builder, count, [w, o, ahead, out, *totals], tap)[2:]
    least = vec.least_value(builder, lanes, relu)
    totals = [vec.at_least(builder, total, least) for total in totals]
    for v in range(vectors):
        for p in range(0, pixels, lanes):
            square = totals[p * vectors + v :: vectors][:lanes]
            places = vec.offset(builder, targets, 8 * v * lanes)
            rest = builder.sub(left, I64(v * lanes))
            _scatter_square(builder, lanes, square, places, vec.offset(builder, y, 4 * p), rest)


@tile
def panel_tile(builder, lanes, weights, taps, col, pitch, bias, targets, y, left, last, relu, *, filters, vectors):
    """y[target of filter, pixels] = bias[filter] + sum over taps of weights[tap, filter] * col[tap, pixels], then ReLU.

    weights   (taps, filters)
    col       vectors * lanes pixels of every tap, pitch from one tap to the next
    bias      (filters,)
    targets   (filters,) int64: the distance of each filter's first pixel from y
    left      how many of the filters are stored
    last      how many pixels of the last vector are stored
    """
    initial = []
    for f in range(filters):
        initial += [vec.broadcast(builder, lanes, vec.offset(builder, bias, 4 * f))] * vectors

    def tap(state):
        w, x, totals = state[0], state[1], state[2:]
        pixels = [vec.load(builder, lanes, vec.offset(builder, x, 4 * lanes * v), 4 * lanes) for v in range(vectors)]
        following = []
        for f in range(filters):
            weight = vec.broadcast(builder, lanes, vec.offset(builder, w, 4 * f))
            for v in range(vectors):
                following.append(vec.multiply_add(builder, weight, pixels[v], totals[f * vectors + v]))
        return [vec.offset(builder, w, 4 * filters), builder.add(x, pitch), *following]

    totals = vec.counted_loop(builder, taps, [weights, col, *initial], tap)[2:]
    least = vec.least_value(builder, lanes, relu)
    whole = builder.icmp_signed("==", last, I64(lanes))
    mask = vec.first_lanes(builder, lanes, last)
    for f in range(filters):
        with builder.if_then(builder.icmp_signed("<", I64(f), left)):
            target = builder.add(y, builder.load(vec.at(builder, vec.offset(builder, targets, 8 * f), I64)))
            sums = [vec.at_least(builder, totals[f * vectors + v], least) for v in range(vectors)]
            _store_line(builder, lanes, sums, target, whole, mask)


@tile
def sparse_tile(builder, lanes, values, offsets, count, x, bias, y, last, relu, *, vectors):
    """y[pixels] = bias + sum over i of values[i] * x[offsets[i] + pixels], then ReLU, for one filter.

    offsets   (count,) int64
    bias      address of one float
    last      how many pixels of the last vector are stored
    """
    initial = [vec.broadcast(builder, lanes, bias)] * vectors

    def weight(state):
        value_at, offset_at, totals = state[0], state[1], state[2:]
        source = builder.add(x, builder.load(vec.at(builder, offset_at, I64)))
        value = vec.broadcast(builder, lanes, value_at)
        following = [
            vec.multiply_add(builder, value, vec.load(builder, lanes, vec.offset(builder, source, 4 * lanes * v)), t)
            for v, t in enumerate(totals)
        ]
        return [vec.offset(builder, value_at, 4), vec.offset(builder, offset_at, 8), *following]

    totals = vec.counted_loop(builder, count, [values, offsets, *initial], weight)[2:]
    least = vec.least_value(builder, lanes, relu)
    whole = builder.icmp_signed("==", last, I64(lanes))
    mask = vec.first_lanes(builder, lanes, last)
    _store_line(builder, lanes, [vec.at_least(builder, t, least) for t in totals], y, whole, mask)


@tile
def dot_tile(builder, lanes, dy, dy_step, col, col_step, vectors, sums, sums_step, *, filters, taps):
    """sums[filter, tap] += sum over pixels of dy[filter, pixel] * col[tap, pixel].

    vectors   number of vectors of pixels
    """
    size = 4 * lanes
    # Constant distances are added to one moving address, so that one register moves instead of many.
    grads = [builder.add(dy, builder.mul(dy_step, I64(f))) for f in range(filters)]
    lines = [builder.add(col, builder.mul(col_step, I64(t))) for t in range(taps)]

    def vector(state):
        distance, totals = state[0], state[1:]
        above = [vec.load(builder, lanes, builder.add(g, distance), size) for g in grads]
        following = list(totals)
        for t in range(taps):
            pixels = vec.load(builder, lanes, builder.add(lines[t], distance), size)
            for f in range(filters):
                following[f * taps + t] = vec.multiply_add(builder, above[f], pixels, totals[f * taps + t])
        return [vec.offset(builder, distance, size), *following]

    totals = vec.counted_loop(builder, vectors, [I64(0), *[vec.zeros(lanes)] * (filters * taps)], vector)[1:]
    for f in range(filters):
        line = builder.add(sums, builder.mul(sums_step, I64(f)))
        for t in range(taps):
            place = vec.at(builder, vec.offset(builder, line, 4 * t), vec.F32)
            total = vec.sum_lanes(builder, totals[f * taps + t])
            builder.store(builder.fadd(builder.load(place), total), place)


def _store_line(builder, lanes, values, target, whole, mask):
    """Stores vectors side by side, the last one whole or with the mask."""
    for v, value in enumerate(values[:-1]):
        vec.store(builder, value, vec.offset(builder, target, 4 * lanes * v))
    place = vec.offset(builder, target, 4 * lanes * (len(values) - 1))
    with builder.if_else(whole) as (full, part):
        with full:
            vec.store(builder, values[-1], place)
        with part:
            vec.masked_store(builder, values[-1], place, mask)


def _scatter_square(builder, lanes, columns, places, target, left):
    """Stores vectors that each hold one pixel of all filters as rows of pixels, each row at its filter's distance from
    target."""
    count = len(columns)
    square = vec.transpose(builder, [*columns, *[vec.zeros(lanes)] * (lanes - count)])
    mask = ir.Constant(ir.VectorType(vec.I1, lanes), [i < count for i in range(lanes)])

    def put(f):
        place = builder.add(target, builder.load(vec.at(builder, vec.offset(builder, places, 8 * f), I64)))
        if count == lanes:
            vec.store(builder, square[f], place)
        else:
            vec.masked_store(builder, square[f], place, mask)

    with builder.if_else(builder.icmp_signed(">=", left, I64(lanes))) as (all_filters, some):
        with all_filters:
            for f in range(lanes):
                put(f)
        with some:
            for f in range(lanes):
                with builder.if_then(builder.icmp_signed("<", I64(f), left)):
                    put(f)
