"""The innermost loops of convolutions with zeros.

    kept_tile     vectors over filters, pixels broadcast where they lie, to scattered output channels
    panel_tile    vectors over pixels, weights broadcast, from a lowered matrix to scattered output channels
    sparse_tile   one filter, its non-zero weights alone, each at a distance of its own
    dot_tile      sums over pixels of products: the gradient of the weights that are kept

As in conv_tiles, each function returns the address of a compiled C function of int64 arguments; distances are in bytes.
Patterns of zeros are arguments of these functions: another pattern compiles nothing.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import I64, REVISION, VectorUnit, compiled, literal_values


@cache
def kept_tile(
    unit: VectorUnit, vectors: int, pixels: int, step: int, taps: int, spacing: int, low: int, high: int
) -> int:
    """y[target of filter, pixel] = bias[filter] + sum over taps of weights[tap, filter] * x[tap's offset, pixel], then ReLU.

    (weights, weights_step, offsets, spans, x, bias, targets, y, left, relu, ahead, ahead_step, out, out_step)
    weights     (vectors, all taps, lanes), weights_step from one vector to the next, aligned
    offsets     (all taps,) int64
    spans       (taps, 2) int64: for every column of the kernel its first tap, and how many there are
    x           the pixel that an offset of 0 stands for; pixels lie ``step`` floats apart
    bias        (vectors * lanes,)
    targets     (vectors * lanes,) int64: the distance of each filter's first pixel from y
    left        how many of the filters are stored
    ahead, out  cache lines to ask for, one of each a tap, to be read and to be written: what comes next is then there

    taps, spacing, low, high   columns of the kernel, ``spacing`` floats apart; of the pixels that the tile meets, counted
                from the first column's of its first pixel, those low <= i < high are in the source, the others not read
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(14)
    def tile(weights, weights_step, offsets, spans, x, bias, targets, y, left, relu, ahead, ahead_step, out, out_step):
        _kept_tile(
            lanes, vectors, pixels, step, taps, spacing, low, high, revision, weights, weights_step, offsets, spans, x,
            bias, targets, y, left, relu, ahead, ahead_step, out, out_step,
        )  # fmt: skip

    return tile


@cache
def panel_tile(unit: VectorUnit, filters: int, vectors: int) -> int:
    """y[target of filter, pixels] = bias[filter] + sum over taps of weights[tap, filter] * col[tap, pixels], then ReLU.

    (weights, taps, col, pitch, bias, targets, y, left, last, relu)
    weights   (taps, filters)
    col       vectors * lanes pixels of every tap, pitch from one tap to the next
    bias      (filters,)
    targets   (filters,) int64: the distance of each filter's first pixel from y
    left      how many of the filters are stored
    last      how many pixels of the last vector are stored
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(10)
    def tile(weights, taps, col, pitch, bias, targets, y, left, last, relu):
        _panel_tile(lanes, filters, vectors, revision, weights, taps, col, pitch, bias, targets, y, left, last, relu)

    return tile


@cache
def sparse_tile(unit: VectorUnit, vectors: int) -> int:
    """y[pixels] = bias + sum over i of values[i] * x[offsets[i] + pixels], then ReLU: one filter.

    (values, offsets, count, x, bias, y, last, relu)
    offsets   (count,) int64
    bias      address of one float
    last      how many pixels of the last vector are stored
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(8)
    def tile(values, offsets, count, x, bias, y, last, relu):
        _sparse_tile(lanes, vectors, revision, values, offsets, count, x, bias, y, last, relu)

    return tile


@cache
def dot_tile(unit: VectorUnit, filters: int, taps: int) -> int:
    """sums[filter, tap] += sum over pixels of dy[filter, pixel] * col[tap, pixel].

    (dy, dy_step, col, col_step, vectors, sums, sums_step)
    vectors   of pixels, in all
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(7)
    def tile(dy, dy_step, col, col_step, vectors, sums, sums_step):
        _dot_tile(lanes, filters, taps, revision, dy, dy_step, col, col_step, vectors, sums, sums_step)

    return tile


@intrinsic(prefer_literal=True)
def _kept_tile(
    typingctx, lanes, vectors, pixels, step, taps, spacing, low, high, revision, weights, weights_step, offsets, spans,
    x, bias, targets, y, left, relu, ahead, ahead_step, out, out_step,
):  # fmt: skip
    numbers = literal_values(lanes, vectors, pixels, step, taps, spacing, low, high, revision)
    if numbers is None:
        return None
    width, nv, pixel_count, x_step, tap_count, tap_step, first, end, _ = numbers
    size = 4 * width

    def codegen(context, builder, signature, args):
        (weights, weights_step, offsets, spans, x, bias, targets, y, left, relu,
         ahead, ahead_step, out, out_step) = args[9:]  # fmt: skip
        totals = [vec.load(builder, width, vec.offset(builder, bias, v * size)) for v in range(nv)] * pixel_count
        for t in range(tap_count):
            met = [p for p in range(pixel_count) if first <= p * x_step + t * tap_step < end]
            if not met:
                continue
            begin, count = (builder.load(vec.at(builder, vec.offset(builder, spans, 16 * t + i), I64)) for i in (0, 8))

            def tap(state, met=met):
                (w, o, ahead, out), sums = state[:4], list(state[4:])
                vec.prefetch(builder, ahead)
                vec.prefetch(builder, out, to_write=True)
                pixel = builder.add(x, builder.load(vec.at(builder, o, I64)))
                lines = [builder.add(w, builder.mul(weights_step, I64(v))) if v else w for v in range(nv)]
                weight = [vec.load(builder, width, line, size) for line in lines]
                for p in met:
                    value = vec.broadcast(builder, width, vec.offset(builder, pixel, 4 * p * x_step))
                    for v in range(nv):
                        sums[p * nv + v] = vec.multiply_add(builder, value, weight[v], sums[p * nv + v])
                places = vec.offset(builder, w, size), vec.offset(builder, o, 8)
                return [*places, builder.add(ahead, ahead_step), builder.add(out, out_step), *sums]

            w, o = (builder.add(start, builder.mul(begin, I64(s))) for start, s in ((weights, size), (offsets, 8)))
            ahead, out, *totals = vec.counted_loop(builder, count, [w, o, ahead, out, *totals], tap)[2:]
        least = vec.least_value(builder, width, relu)
        totals = [vec.at_least(builder, total, least) for total in totals]
        for v in range(nv):
            for p in range(0, pixel_count, width):
                square = totals[p * nv + v :: nv][:width]
                places = vec.offset(builder, targets, 8 * v * width)
                rest = builder.sub(left, I64(v * width))
                _scatter_square(builder, width, square, places, vec.offset(builder, y, 4 * p), rest)
        return context.get_dummy_value()

    head = (lanes, vectors, pixels, step, taps, spacing, low, high, revision)
    return types.void(*head, *[types.int64] * 14), codegen


@intrinsic(prefer_literal=True)
def _panel_tile(
    typingctx, lanes, filters, vectors, revision, weights, taps, col, pitch, bias, targets, y, left, last, relu
):
    numbers = literal_values(lanes, filters, vectors, revision)
    if numbers is None:
        return None
    width, nf, nv, _ = numbers

    def codegen(context, builder, signature, args):
        weights, taps, col, pitch, bias, targets, y, left, last, relu = args[4:]
        initial = []
        for f in range(nf):
            initial += [vec.broadcast(builder, width, vec.offset(builder, bias, 4 * f))] * nv

        def tap(state):
            w, x, totals = state[0], state[1], state[2:]
            pixels = [vec.load(builder, width, vec.offset(builder, x, 4 * width * v), 4 * width) for v in range(nv)]
            following = []
            for f in range(nf):
                weight = vec.broadcast(builder, width, vec.offset(builder, w, 4 * f))
                for v in range(nv):
                    following.append(vec.multiply_add(builder, weight, pixels[v], totals[f * nv + v]))
            return [vec.offset(builder, w, 4 * nf), builder.add(x, pitch), *following]

        totals = vec.counted_loop(builder, taps, [weights, col, *initial], tap)[2:]
        least = vec.least_value(builder, width, relu)
        whole = builder.icmp_signed("==", last, I64(width))
        mask = vec.first_lanes(builder, width, last)
        for f in range(nf):
            with builder.if_then(builder.icmp_signed("<", I64(f), left)):
                target = builder.add(y, builder.load(vec.at(builder, vec.offset(builder, targets, 8 * f), I64)))
                sums = [vec.at_least(builder, totals[f * nv + v], least) for v in range(nv)]
                _store_line(builder, width, sums, target, whole, mask)
        return context.get_dummy_value()

    return types.void(lanes, filters, vectors, revision, *[types.int64] * 10), codegen


@intrinsic(prefer_literal=True)
def _sparse_tile(typingctx, lanes, vectors, revision, values, offsets, count, x, bias, y, last, relu):
    numbers = literal_values(lanes, vectors, revision)
    if numbers is None:
        return None
    width, nv, _ = numbers

    def codegen(context, builder, signature, args):
        values, offsets, count, x, bias, y, last, relu = args[3:]
        initial = [vec.broadcast(builder, width, bias)] * nv

        def weight(state):
            value_at, offset_at, totals = state[0], state[1], state[2:]
            source = builder.add(x, builder.load(vec.at(builder, offset_at, I64)))
            value = vec.broadcast(builder, width, value_at)
            following = [
                vec.multiply_add(
                    builder, value, vec.load(builder, width, vec.offset(builder, source, 4 * width * v)), t
                )
                for v, t in enumerate(totals)
            ]
            return [vec.offset(builder, value_at, 4), vec.offset(builder, offset_at, 8), *following]

        totals = vec.counted_loop(builder, count, [values, offsets, *initial], weight)[2:]
        least = vec.least_value(builder, width, relu)
        whole = builder.icmp_signed("==", last, I64(width))
        mask = vec.first_lanes(builder, width, last)
        _store_line(builder, width, [vec.at_least(builder, t, least) for t in totals], y, whole, mask)
        return context.get_dummy_value()

    return types.void(lanes, vectors, revision, *[types.int64] * 8), codegen


@intrinsic(prefer_literal=True)
def _dot_tile(typingctx, lanes, filters, taps, revision, dy, dy_step, col, col_step, vectors, sums, sums_step):
    numbers = literal_values(lanes, filters, taps, revision)
    if numbers is None:
        return None
    width, nf, nt, _ = numbers
    size = 4 * width

    def codegen(context, builder, signature, args):
        dy, dy_step, col, col_step, vectors, sums, sums_step = args[4:]
        # Distances that do not change are added to one moving place, not kept as so many moving places.
        grads = [builder.add(dy, builder.mul(dy_step, I64(f))) for f in range(nf)]
        lines = [builder.add(col, builder.mul(col_step, I64(t))) for t in range(nt)]

        def vector(state):
            distance, totals = state[0], state[1:]
            above = [vec.load(builder, width, builder.add(g, distance), size) for g in grads]
            following = list(totals)
            for t in range(nt):
                pixels = vec.load(builder, width, builder.add(lines[t], distance), size)
                for f in range(nf):
                    following[f * nt + t] = vec.multiply_add(builder, above[f], pixels, totals[f * nt + t])
            return [vec.offset(builder, distance, size), *following]

        totals = vec.counted_loop(builder, vectors, [I64(0), *[vec.zeros(width)] * (nf * nt)], vector)[1:]
        for f in range(nf):
            line = builder.add(sums, builder.mul(sums_step, I64(f)))
            for t in range(nt):
                place = vec.at(builder, vec.offset(builder, line, 4 * t), vec.F32)
                total = vec.sum_lanes(builder, totals[f * nt + t])
                builder.store(builder.fadd(builder.load(place), total), place)
        return context.get_dummy_value()

    return types.void(lanes, filters, taps, revision, *[types.int64] * 7), codegen


def _store_line(builder, width, values, target, whole, mask):
    """Vectors side by side, the last one whole or as the mask says."""
    for v, value in enumerate(values[:-1]):
        vec.store(builder, value, vec.offset(builder, target, 4 * width * v))
    place = vec.offset(builder, target, 4 * width * (len(values) - 1))
    with builder.if_else(whole) as (full, part):
        with full:
            vec.store(builder, values[-1], place)
        with part:
            vec.masked_store(builder, values[-1], place, mask)


def _scatter_square(builder, width, columns, places, target, left):
    """Vectors of which each is a pixel of all filters, stored as rows of pixels: each filter's at its distance from target."""
    count = len(columns)
    square = vec.transpose(builder, [*columns, *[vec.zeros(width)] * (width - count)])
    mask = ir.Constant(ir.VectorType(vec.I1, width), [i < count for i in range(width)])

    def put(f):
        place = builder.add(target, builder.load(vec.at(builder, vec.offset(builder, places, 8 * f), I64)))
        if count == width:
            vec.store(builder, square[f], place)
        else:
            vec.masked_store(builder, square[f], place, mask)

    with builder.if_else(builder.icmp_signed(">=", left, I64(width))) as (all_filters, some):
        with all_filters:
            for f in range(width):
                put(f)
        with some:
            for f in range(width):
                with builder.if_then(builder.icmp_signed("<", I64(f), left)):
                    put(f)
