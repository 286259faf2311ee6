"""Channel planes copied into zero-padded windows, for machines on which loading a part of a vector is slow.

A window of one plane is stride_h * stride_w phase planes: (row, column) of the padded plane stands in the phase plane
(row % stride_h, column % stride_w) at (row // stride_h, column // stride_w), so that the pixels of a vector lie side by side.
As in conv_tiles, a function returns the address of a compiled C function of int64 arguments; distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.extending import intrinsic

from sslnet.kernels.conv.depthwise.loads import odd_lanes
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import I64, REVISION, VectorUnit, compiled, literal_values


@cache
def fill_window(unit: VectorUnit, step_h: int, step_w: int) -> int:
    """Windows of planes that lie one behind the other; beyond the planes' rows and columns 0.

    (source, planes, height, width, first_row, rows, pad, window, plane_step, phase_step, pitch, zeros)
    first_row    of the plane, what the window's first row is: negative in the padding
    rows         of the padded plane, to be written
    pad          columns of zeros before each row; the caller has zeroed the windows once, and they are never written
    plane_step, phase_step, pitch   from one window, phase plane, row to the next; a phase plane may be overrun by a vector
    zeros        floats of a window's row to be zeroed where it lies outside the plane
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(12)
    def fill(source, planes, height, width, first_row, rows, pad, window, plane_step, phase_step, pitch, zeros):
        for p in range(planes):
            plane = source + p * height * width * 4
            for row in range(rows):
                target = window + p * plane_step + row % step_h * step_w * phase_step + row // step_h * pitch
                at = first_row + row
                if 0 <= at < height:
                    _fill_row(lanes, step_w, revision, plane + at * width * 4, width, target, phase_step, pad)
                else:
                    for phase in range(step_w):
                        _zero_row(lanes, revision, target + phase * phase_step, zeros)

    return fill


@intrinsic(prefer_literal=True)
def _fill_row(typingctx, lanes, step, revision, source, width, target, phase_step, pad):
    """Puts a row behind ``pad`` zeros, split into ``step`` (1 or 2) phases, zeros up to the end of the last vector."""
    numbers = literal_values(lanes, step, revision)
    if numbers is None:
        return None
    width_of_vector, phases, _ = numbers
    size = 4 * width_of_vector

    def codegen(context, builder, signature, args):
        source, width, target, phase_step, pad = args[3:]
        places = []
        for first in range(phases):  # where the pixels first, first + phases ... of the source go
            column = builder.add(pad, I64(first))
            phase = builder.mul(builder.srem(column, I64(phases)), phase_step)
            distance = builder.mul(builder.sdiv(column, I64(phases)), I64(4))
            places.append(builder.add(target, builder.add(phase, distance)))

        def put(state, load):
            vectors = [load(vec.offset(builder, state[0], i * size), i) for i in range(phases)]
            if phases == 2:
                vectors = [vec.even_lanes(builder, *vectors), odd_lanes(builder, *vectors)]
            for value, place in zip(vectors, state[1:]):
                vec.store(builder, value, place)
            step = [phases * size, *[size] * phases]
            return [vec.offset(builder, place, distance) for place, distance in zip(state, step)]

        each = I64(phases * width_of_vector)
        rest = builder.srem(width, each)
        state = vec.counted_loop(
            builder,
            builder.sdiv(width, each),
            [source, *places],
            lambda state: put(state, lambda where, i: vec.load(builder, width_of_vector, where)),
        )

        def masked(where, i):
            mask = vec.first_lanes(builder, width_of_vector, builder.sub(rest, I64(i * width_of_vector)))
            return vec.masked_load(builder, width_of_vector, where, mask)

        with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
            put(state, masked)
        return context.get_dummy_value()

    return types.void(lanes, step, revision, *[types.int64] * 5), codegen


@intrinsic(prefer_literal=True)
def _zero_row(typingctx, lanes, revision, target, count):
    """Zeros from target on, at least ``count``, up to the end of the last vector."""
    numbers = literal_values(lanes, revision)
    if numbers is None:
        return None
    width, _ = numbers

    def codegen(context, builder, signature, args):
        target, count = args[2:]
        vectors = builder.sdiv(builder.add(count, I64(width - 1)), I64(width))

        def put(state):
            vec.store(builder, vec.zeros(width), state[0])
            return [vec.offset(builder, state[0], 4 * width)]

        vec.counted_loop(builder, vectors, [target], put)
        return context.get_dummy_value()

    return types.void(lanes, revision, types.int64, types.int64), codegen
