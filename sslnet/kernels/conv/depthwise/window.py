"""Packing of channel planes into zero-padded windows, for machines on which loading a part of a vector is slow.

The window of a plane consists of stride_h * stride_w phase planes: (row, column) of the padded plane is in the phase
plane (row % stride_h, column % stride_w) at (row // stride_h, column // stride_w), so that the pixels of a vector are
contiguous. How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from sslnet.kernels.runtime.compiler import c_function
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions
from sslnet.kernels.simd.vector import I64, VectorUnit


@cache
def fill_window(unit: VectorUnit, step_h: int, step_w: int) -> int:
    """Fills the windows of consecutive planes; zero outside the planes.

    (source, planes, height, width, first_row, rows, pad, window, plane_step, phase_step, pitch, zeros)
    first_row    row of the plane at the window's first row; negative in the padding
    rows         rows of the padded plane to write
    pad          columns of zeros before each row; the caller has zeroed the windows once, and they are never written
    plane_step, phase_step, pitch   from one window, phase plane, row to the next; a phase plane may be overrun by a vector
    zeros        floats of a window's row to set to zero where it lies outside the plane
    """
    lanes = unit.lanes

    @c_function
    def fill(source, planes, height, width, first_row, rows, pad, window, plane_step, phase_step, pitch, zeros):
        for p in range(planes):
            plane = source + p * height * width * 4
            for row in range(rows):
                target = window + p * plane_step + row % step_h * step_w * phase_step + row // step_h * pitch
                at = first_row + row
                if 0 <= at < height:
                    _fill_row(lanes, step_w, plane + at * width * 4, width, target, phase_step, pad)
                else:
                    for phase in range(step_w):
                        _zero_row(lanes, target + phase * phase_step, zeros)

    return fill


@instructions
def _fill_row(builder, lanes, source, width, target, phase_step, pad, *, phases):
    """Writes a row after ``pad`` zeros, split into ``phases`` (1 or 2) parts, then zeros to the end of the last
    vector."""
    size = 4 * lanes
    places = []
    for first in range(phases):  # the place of the pixels first, first + phases ... of the source
        column = builder.add(pad, I64(first))
        phase = builder.mul(builder.srem(column, I64(phases)), phase_step)
        distance = builder.mul(builder.sdiv(column, I64(phases)), I64(4))
        places.append(builder.add(target, builder.add(phase, distance)))

    def put(state, load):
        vectors = [load(vec.offset(builder, state[0], i * size), i) for i in range(phases)]
        if phases == 2:
            vectors = [vec.even_lanes(builder, *vectors), vec.odd_lanes(builder, *vectors)]
        for value, place in zip(vectors, state[1:]):
            vec.store(builder, value, place)
        steps = [phases * size, *[size] * phases]
        return [vec.offset(builder, place, distance) for place, distance in zip(state, steps)]

    each = I64(phases * lanes)
    rest = builder.srem(width, each)
    state = vec.counted_loop(
        builder,
        builder.sdiv(width, each),
        [source, *places],
        lambda state: put(state, lambda where, i: vec.load(builder, lanes, where)),
    )

    def masked(where, i):
        mask = vec.first_lanes(builder, lanes, builder.sub(rest, I64(i * lanes)))
        return vec.masked_load(builder, lanes, where, mask)

    with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
        put(state, masked)


@instructions
def _zero_row(builder, lanes, target, count):
    """Writes at least ``count`` zeros from ``target`` on, to the end of the last vector."""
    vectors = builder.sdiv(builder.add(count, I64(lanes - 1)), I64(lanes))

    def put(state):
        vec.store(builder, vec.zeros(lanes), state[0])
        return [vec.offset(builder, state[0], 4 * lanes)]

    vec.counted_loop(builder, vectors, [target], put)
