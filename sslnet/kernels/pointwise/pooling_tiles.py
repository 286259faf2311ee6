"""The micro-kernel of pooling with the usual windows, 2x2 and 3x3: vectors of neighbouring windows, all taps in registers.

    pool_tile     the maxima of a plane's windows, with or without their places, or the weighed sums
    spread_tile   the gradient of the sums, one row of the image

A plane lies in a buffer, with its padding and ``SLACK`` more elements. In a row of windows the last vector begins
early enough to end with the row, so that there is no remainder; a row shorter than a vector is stored with a mask.
How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import tile
from sslnet.kernels.simd.vector import I32, I64

MAX, MAX_AND_PLACE, SUM = 0, 1, 2
"""What a tile computes."""
WINDOWS = ((2, 2), (3, 1), (3, 2))
"""(kernel size, stride), of both axes, for which there is a tile."""
SLACK = 80
"""Elements beyond the end of the plane that a tile may read: for two vectors of at most 32 windows, and a window."""

SPREAD_WIDTH = 48
"""Width of an image from which on the gradient's tile is faster than long loops over the whole plane."""


@tile
def pool_tile(builder, lanes, plane, row, down, rows, across, y, place, width, first, shares, *, kernel, stride, kind):
    """Pools the ``rows`` x ``across`` windows of a plane; rows and across are at least 1.

    plane    the first window's first value
    row      from one row of the plane to the next
    down     from one row of windows to the next
    y        (rows, across)
    place    (rows, across) int32, with MAX_AND_PLACE: width * row + column of the first of equal maxima
    width    the number by which places differ from row to row of the plane
    first    the place of the plane's first value
    shares   (rows, across) factors of the sums, and as many more elements as a vector has, with SUM
    """
    size, integers = 4 * lanes, ir.VectorType(I32, lanes)
    whole = builder.icmp_signed(">=", across, I64(lanes))
    last = builder.select(whole, builder.sub(across, I64(lanes)), I64(0))
    mask = vec.first_lanes(builder, lanes, across)
    vectors = builder.sdiv(builder.add(across, I64(lanes - 1)), I64(lanes))
    steps = ir.Constant(integers, [stride * i for i in range(lanes)])
    narrow = builder.trunc(width, I32)

    def splat(number):
        return vec.splat(builder, lanes, number)

    taps = [
        [splat(builder.add(builder.mul(narrow, I32(i)), I32(j))) for j in range(kernel)]
        if kind == MAX_AND_PLACE
        else []
        for i in range(kernel)
    ]

    def values(line):
        """The vectors of each tap along a row of the plane."""
        if stride == 1:
            return [vec.load(builder, lanes, vec.offset(builder, line, 4 * j)) for j in range(kernel)]
        pairs = [
            [vec.load(builder, lanes, vec.offset(builder, line, 4 * j + k * size)) for k in range(2)]
            for j in range(0, kernel, 2)
        ]
        found = [pick(builder, *pair) for pair in pairs for pick in (vec.even_lanes, vec.odd_lanes)]
        return found[:kernel]

    def put(vector, address):
        with builder.if_else(whole) as (then, otherwise):
            with then:
                vec.store(builder, vector, address)
            with otherwise:
                vec.masked_store(builder, vector, address, mask)

    def pool(state):
        q, line, out, where, share, start = state
        at = builder.select(builder.icmp_signed("<", q, last), q, last)
        position = builder.mul(at, I64(4))
        begin = builder.add(line, builder.mul(at, I64(4 * stride)))
        most = index = None
        for i in range(kernel):
            for j, value in enumerate(values(vec.line(builder, begin, row, i))):
                if most is None:
                    most, index = value, (taps[0][0] if taps[0] else None)
                elif kind == SUM:
                    most = builder.fadd(most, value)
                else:
                    larger = builder.fcmp_ordered(">", value, most)
                    most = builder.select(larger, value, most)
                    if kind == MAX_AND_PLACE:
                        index = builder.select(larger, taps[i][j], index)
        if kind == SUM:
            most = builder.fmul(most, vec.load(builder, lanes, builder.add(share, position)))
        put(most, builder.add(out, position))
        if kind == MAX_AND_PLACE:
            base = builder.add(start, builder.trunc(builder.mul(at, I64(stride)), I32))
            index = builder.add(builder.add(index, steps), splat(base))
            put(builder.bitcast(index, most.type), builder.add(where, position))
        return [builder.add(q, I64(lanes)), line, out, where, share, start]

    def windows(state):
        line, out, where, share, start = state
        vec.counted_loop(builder, vectors, [I64(0), line, out, where, share, start], pool)
        pitch = builder.mul(across, I64(4))
        lower = builder.add(start, builder.mul(narrow, I32(stride)))
        return [
            builder.add(line, down), builder.add(out, pitch), builder.add(where, pitch), builder.add(share, pitch), lower
        ]  # fmt: skip

    vec.counted_loop(builder, rows, [plane, y, place, shares, builder.trunc(first, I32)], windows)


def tile_of(kernel: tuple[int, int], stride: tuple[int, int], dtype: np.dtype, kind: int) -> int:
    """The address of the tile for these windows; 0 if there is none."""
    if not _has_tile(kernel, stride, dtype):
        return 0
    return pool_tile(vec.vector_unit(), kernel=kernel[0], stride=stride[0], kind=kind)


@tile
def spread_tile(builder, lanes, windows, line, lines, out, vectors, *, kernel, stride):
    """One row of the gradient of SUM: each value is the sum of the windows that contain it.

    windows   the first row of windows that reach the row, with ``kernel`` zeros before each row of windows
    line      from one row of windows to the next
    lines     how many rows of windows reach the row
    out       vectors * stride vectors, from the first window's first value on
    """
    size = 4 * lanes
    reach = -(-kernel // stride)

    def step(state):
        position, target = state

        def add(totals):
            place, *sums = totals
            loaded = [vec.load(builder, lanes, vec.offset(builder, place, -4 * k)) for k in range(reach)]
            return [builder.add(place, line), *(builder.fadd(a, b) for a, b in zip(sums, loaded))]

        totals = vec.counted_loop(builder, lines, [position, *[vec.zeros(lanes)] * reach], add)[1:]
        columns = []
        for column in range(stride):
            value = totals[0]
            for k in range(1, reach):
                if column + k * stride < kernel:
                    value = builder.fadd(value, totals[k])
            columns.append(value)
        for k, value in enumerate(columns if stride == 1 else vec.zip_lanes(builder, *columns)):
            vec.store(builder, value, vec.offset(builder, target, k * size))
        return [vec.offset(builder, position, size), vec.offset(builder, target, stride * size)]

    vec.counted_loop(builder, vectors, [windows, out], step)


def spread_tile_of(kernel: tuple[int, int], stride: tuple[int, int], dtype: np.dtype, width: int) -> int:
    """The address of the gradient's tile for these windows on images of this width; 0 if there is none."""
    if width < SPREAD_WIDTH or not _has_tile(kernel, stride, dtype):
        return 0
    return spread_tile(vec.vector_unit(), kernel=kernel[0], stride=stride[0])


def _has_tile(kernel: tuple[int, int], stride: tuple[int, int], dtype: np.dtype) -> bool:
    square = kernel[0] == kernel[1] and stride[0] == stride[1]
    return dtype == np.float32 and square and (kernel[0], stride[0]) in WINDOWS
