"""Micro-kernels on rows of bytes: conversions from and to float32, sums, maxima and means. Distances are in bytes.

Factors are float32, passed as their bits in an int64. How tiles are made and called: ``simd.tile``.
"""

from __future__ import annotations

from sslnet.kernels.quantized.dot import I8, constant, kind_vector, load_as
from sslnet.kernels.quantized.microkernels import bytes_of
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import tile
from sslnet.kernels.simd.vector import I32, I64, Builder, Value

BLOCK = 16
"""Bytes of a block of pixels: the channels of a pixel are a whole number of words of four, and blocks where they suffice."""


def factor_of(builder: Builder, lanes: int, bits: Value) -> Value:
    """A float32, given as its bits, in every lane."""
    return vec.splat(builder, lanes, builder.bitcast(builder.trunc(bits, I32), vec.F32))


def widened(builder: Builder, lanes: int, address: Value) -> Value:
    """The bytes at an address as int32."""
    return builder.zext(load_as(builder, kind_vector(I8, lanes), address), kind_vector(I32, lanes))


@tile
def quantize_words(builder, lanes, source, plane, channels, target, step, count, scale, zero, top):
    """target[p, c] = clamp(rint(source[c, p] / scale) + zero, 0, top) as u8; NaN becomes ``zero``.

    source     (channels, ...) float32, channels ``plane`` bytes apart; 1 to 4 channels, missing ones are written as the last
    target     pixels ``step`` bytes apart, four bytes of each are written
    count      pixels, a multiple of lanes
    """
    kind = vec.vector_type(lanes)
    factor = factor_of(builder, lanes, scale)
    last = builder.sub(channels, I64(1))
    places = []
    for c in range(4):
        number = builder.select(builder.icmp_signed("<", I64(c), last), I64(c), last)
        places.append(builder.add(source, builder.mul(number, plane)))

    def block(state):
        to, given = state[0], state[1:]
        words = None
        for c in range(4):
            value = builder.fdiv(vec.load(builder, lanes, given[c]), factor)
            value = builder.select(builder.fcmp_ordered("ord", value, value), value, constant(vec.F32, lanes, 0.0))
            byte = builder.zext(bytes_of(builder, lanes, value, zero, top), kind_vector(I32, lanes))
            byte = builder.shl(byte, constant(I32, lanes, 8 * c)) if c else byte
            words = byte if words is None else builder.or_(words, byte)
        for i in range(lanes):
            word = builder.extract_element(words, I32(i))
            builder.store(word, vec.at(builder, vec.line(builder, to, step, i), I32)).align = 1
        moved = builder.add(to, builder.mul(step, I64(lanes)))
        return [moved, *(vec.offset(builder, g, 4 * lanes) for g in given)]

    assert kind.count == lanes
    vec.counted_loop(builder, builder.sdiv(count, I64(lanes)), [target, *places], block)


@tile
def quantize_row(builder, lanes, source, target, count, scale, zero, top):
    """target[i] = clamp(rint(source[i] / scale) + zero, 0, top) as u8, for a multiple of lanes values; NaN: ``zero``."""
    factor = factor_of(builder, lanes, scale)

    def block(state):
        given, to = state
        value = builder.fdiv(vec.load(builder, lanes, given), factor)
        value = builder.select(builder.fcmp_ordered("ord", value, value), value, constant(vec.F32, lanes, 0.0))
        vec.store(builder, bytes_of(builder, lanes, value, zero, top), to, 1)
        return [vec.offset(builder, given, 4 * lanes), vec.offset(builder, to, lanes)]

    vec.counted_loop(builder, builder.sdiv(count, I64(lanes)), [source, target], block)


@tile
def dequantize_words(builder, lanes, source, step, target, plane, channels, count, scale, zero):
    """target[c, p] = (source[p, c] - zero) * scale, for 1 to 4 channels.

    source    u8, pixels ``step`` bytes apart, four bytes of each are read;  count: pixels, a multiple of lanes
    target    (channels, ...) float32, channels ``plane`` bytes apart
    """
    factor = factor_of(builder, lanes, scale)
    shift = vec.splat(builder, lanes, builder.trunc(zero, I32))

    def block(state):
        given, to = state
        words = constant(I32, lanes, 0)
        for i in range(lanes):
            word = load_as(builder, I32, vec.line(builder, given, step, i))
            words = builder.insert_element(words, word, I32(i))
        for c in range(4):
            with builder.if_then(builder.icmp_signed(">", channels, I64(c))):
                byte = builder.and_(builder.lshr(words, constant(I32, lanes, 8 * c)), constant(I32, lanes, 255))
                value = builder.sitofp(builder.sub(byte, shift), vec.vector_type(lanes))
                vec.store(builder, builder.fmul(value, factor), vec.line(builder, to, plane, c))
        return [builder.add(given, builder.mul(step, I64(lanes))), vec.offset(builder, to, 4 * lanes)]

    vec.counted_loop(builder, builder.sdiv(count, I64(lanes)), [source, target], block)


@tile
def add_blocks(builder, lanes, a, b, target, count, factor_a, zero_a, factor_b, zero_b, zero, top):
    """target[i] = clamp(rint((a[i] - zero_a) * factor_a + (b[i] - zero_b) * factor_b) + zero, 0, top), for a multiple of
    lanes bytes; each product and the sum are rounded to float32."""
    factors = [factor_of(builder, lanes, f) for f in (factor_a, factor_b)]
    shifts = [vec.splat(builder, lanes, builder.trunc(z, I32)) for z in (zero_a, zero_b)]

    def block(state):
        total = None
        for place, factor, shift in zip(state, factors, shifts):
            value = builder.sitofp(builder.sub(widened(builder, lanes, place), shift), vec.vector_type(lanes))
            value = builder.fmul(value, factor)
            total = value if total is None else builder.fadd(total, value)
        vec.store(builder, bytes_of(builder, lanes, total, zero, top), state[2], 1)
        return [vec.offset(builder, place, lanes) for place in state]

    vec.counted_loop(builder, builder.sdiv(count, I64(lanes)), [a, b, target], block)


@tile
def max_block(builder, lanes, x, row_step, rows, step, columns, out, *, size):
    """out[i] = the largest of x[r * row_step + c * step + i] over rows r and columns c (at least one), for ``size`` bytes."""
    kind = kind_vector(I8, size)

    def row(state):
        place, best = state

        def column(state):
            where, best = state
            value = load_as(builder, kind, where)
            best = builder.select(builder.icmp_unsigned(">", value, best), value, best)
            return [builder.add(where, step), best]

        (_, best) = vec.counted_loop(builder, columns, [place, best], column)
        return [builder.add(place, row_step), best]

    (_, best) = vec.counted_loop(builder, rows, [x, constant(I8, size, 0)], row)
    builder.store(best, vec.at(builder, out, kind)).align = 1


@tile
def mean_block(builder, lanes, x, row_step, rows, step, columns, out, start, factor, zero, top, *, size):
    """out[i] = clamp(rint((start + sum over rows r and columns c of x[r * row_step + c * step + i]) * factor) + zero, 0, top),
    for ``size`` bytes; start: minus the zero of x for each of them."""
    factor = factor_of(builder, size, factor)
    first = vec.splat(builder, size, builder.trunc(start, I32))

    def row(state):
        place, total = state

        def column(state):
            where, total = state
            return [builder.add(where, step), builder.add(total, widened(builder, size, where))]

        (_, total) = vec.counted_loop(builder, columns, [place, total], column)
        return [builder.add(place, row_step), total]

    (_, total) = vec.counted_loop(builder, rows, [x, first], row)
    value = builder.fmul(builder.sitofp(total, vec.vector_type(size)), factor)
    vec.store(builder, bytes_of(builder, size, value, zero, top), out, 1)
