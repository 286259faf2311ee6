"""The micro-kernels of convolutions of bytes: sums of products, requantised as they are stored.

    q = clamp(rint(float32(sum) * scale), -zero, top - zero) + zero        one float32 multiplication, ties to even

``sum`` is an int32 that begins with the bias. Distances are in bytes; how tiles are made and called: ``simd.tile``.
"""

from __future__ import annotations

from sslnet.kernels.quantized import dot
from sslnet.kernels.quantized.dot import I8, I16, constant, kind_vector, load_as
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import tile
from sslnet.kernels.simd.vector import I32, I64, Builder, Value

ROUNDER = 12582912.0
"""1.5 * 2^23: float32 of this size have no fraction, so that adding it rounds, ties to even, as rint does."""
ROUNDER_BITS = 0x4B400000


@tile
def dot_tile(
    builder, lanes, weights, x, places, offsets, lines, steps, scale, bias, zero, top, out, out_step, left, *, kind,
    vectors, pixels, floats,
):  # fmt: skip
    """out[p, f] = requantised bias[f] + sum over lines l and steps s of x[places[p] + offsets[l] + s] * weights[l, s, f].

    weights   (lines, steps, vectors * lanes) steps of 4 s8 (S16: 2)
    places    (pixels,) int64: distance of each pixel from x;  offsets: (lines,) int64
    scale     (vectors * lanes,) float32;  bias: int32
    out       (pixels, vectors * lanes) u8, or float32 that are not rounded, if ``floats``; pixels lie out_step apart
    left      how many filters are stored; u8: rounded up to four
    """
    size = lanes * (2 if kind == dot.S16 else 4)
    begin = [
        builder.add(x, builder.load(vec.at(builder, vec.offset(builder, places, 8 * p), I64))) for p in range(pixels)
    ]
    first = [
        load_as(builder, kind_vector(I32, lanes), vec.offset(builder, bias, 4 * lanes * v)) for v in range(vectors)
    ]

    def line(state):
        w, line_offset, totals = state[0], state[1], state[2:]
        distance = builder.load(vec.at(builder, line_offset, I64))
        own = [builder.add(pixel, distance) for pixel in begin]

        def step(state):
            w, k, totals = state[0], state[1], list(state[2:])
            factors = [dot.load_weights(builder, kind, lanes, vec.offset(builder, w, v * size)) for v in range(vectors)]
            for p in range(pixels):
                value = dot.load_activations(builder, kind, lanes, builder.add(own[p], k))
                for v in range(vectors):
                    j = p * vectors + v
                    totals[j] = dot.add_products(builder, kind, lanes, totals[j], value, factors[v])
            return [vec.offset(builder, w, vectors * size), vec.offset(builder, k, 4), *totals]

        state = vec.counted_loop(builder, steps, [w, I64(0), *totals], step)
        return [state[0], vec.offset(builder, line_offset, 8), *state[2:]]

    totals = vec.counted_loop(builder, lines, [weights, offsets, *(first * pixels)], line)[2:]
    store(builder, lanes, totals, scale, zero, top, out, out_step, left, vectors, floats)


@tile
def depthwise_tile(
    builder, lanes, weights, x, places, offsets, taps, scale, bias, zero, top, out, out_step, left, *, pairs, pixels,
    floats,
):  # fmt: skip
    """out[p, c] = requantised bias[c] + sum over taps t of x[places[p] + offsets[t] + c] * weights[t, c], for lanes
    channels.

    weights   (taps, lanes) int32
    places, offsets, scale, bias, out, left   as in dot_tile, for one vector
    pairs     use vpmaddwd, which is faster than a multiplication of int32 on x86
    """
    begin = [
        builder.add(x, builder.load(vec.at(builder, vec.offset(builder, places, 8 * p), I64))) for p in range(pixels)
    ]
    sums = kind_vector(I32, lanes)

    def tap(state):
        w, where, totals = state[0], state[1], list(state[2:])
        distance = builder.load(vec.at(builder, where, I64))
        factor = load_as(builder, sums, w)
        for p in range(pixels):
            value = builder.zext(load_as(builder, kind_vector(I8, lanes), builder.add(begin[p], distance)), sums)
            if pairs:
                halves = kind_vector(I16, 2 * lanes)
                product = dot.add_pairs(builder, lanes, builder.bitcast(value, halves), builder.bitcast(factor, halves))
            else:
                product = builder.mul(value, factor)
            totals[p] = builder.add(totals[p], product)
        return [vec.offset(builder, w, 4 * lanes), vec.offset(builder, where, 8), *totals]

    first = load_as(builder, sums, bias)
    totals = vec.counted_loop(builder, taps, [weights, offsets, *([first] * pixels)], tap)[2:]
    store(builder, lanes, totals, scale, zero, top, out, out_step, left, 1, floats)


def store(
    builder: Builder, lanes: int, totals: list[Value], scale: Value, zero: Value, top: Value, out: Value,
    out_step: Value, left: Value, vectors: int, floats: int,
) -> None:  # fmt: skip
    """Requantises the sums (pixels x vectors) and stores them, as dot_tile describes."""
    kind = vec.vector_type(lanes)
    factor = [vec.load(builder, lanes, vec.offset(builder, scale, 4 * lanes * v)) for v in range(vectors)]
    values = [builder.fmul(builder.sitofp(t, kind), factor[i % vectors]) for i, t in enumerate(totals)]
    if not floats:
        values = [bytes_of(builder, lanes, value, zero, top) for value in values]
    size = 4 if floats else 1
    whole = builder.icmp_signed(">=", left, I64(vectors * lanes))
    with builder.if_else(whole) as (full, part):
        with full:
            for i, value in enumerate(values):
                vec.store(builder, value, _place(builder, out, out_step, i, vectors, lanes * size), 1)
        with part:
            for i, value in enumerate(values):
                target = _place(builder, out, out_step, i, vectors, lanes * size)
                rest = builder.sub(left, I64(i % vectors * lanes))
                if floats:
                    vec.masked_store(builder, value, target, vec.first_lanes(builder, lanes, rest))
                else:
                    _store_words(builder, lanes, value, target, rest)


def bytes_of(builder: Builder, lanes: int, value: Value, zero: Value, top: Value) -> Value:
    """The vector of u8 clamp(rint(value), -zero, top - zero) + zero of float32 values."""
    kind, whole = vec.vector_type(lanes), kind_vector(I32, lanes)
    low = builder.sitofp(builder.neg(zero), vec.F32)
    high = builder.sitofp(builder.sub(top, zero), vec.F32)
    low, high = vec.splat(builder, lanes, low), vec.splat(builder, lanes, high)
    value = builder.select(builder.fcmp_ordered(">", value, low), value, low)
    value = builder.select(builder.fcmp_ordered("<", value, high), value, high)
    bits = builder.bitcast(builder.fadd(value, constant(vec.F32, lanes, ROUNDER)), whole)
    shift = vec.splat(builder, lanes, builder.trunc(builder.sub(zero, I64(ROUNDER_BITS)), I32))
    assert kind.count == lanes
    return builder.trunc(builder.add(bits, shift), kind_vector(I8, lanes))


def _place(builder: Builder, out: Value, out_step: Value, i: int, vectors: int, size: int) -> Value:
    return vec.offset(builder, vec.line(builder, out, out_step, i // vectors), i % vectors * size)


def _store_words(builder: Builder, lanes: int, value: Value, target: Value, rest: Value) -> None:
    """Stores the first ``rest`` of ``lanes`` bytes, rounded up to words of four."""
    words = builder.bitcast(value, kind_vector(I32, lanes // 4))
    for i in range(lanes // 4):
        with builder.if_then(builder.icmp_signed(">", rest, I64(4 * i))):
            word = builder.extract_element(words, I32(i))
            builder.store(word, vec.at(builder, vec.offset(builder, target, 4 * i), I32)).align = 1
