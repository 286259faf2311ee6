"""The micro-kernels of Winograd's method: its transforms, for one vector of channels or filters at a time.

How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from sslnet.kernels.conv.transposes import load_square
from sslnet.kernels.conv.winograd.matrices import OUTPUT, TileShape, apply, matrix_of
from sslnet.kernels.runtime.compiler import c_function
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions, tile
from sslnet.kernels.simd.vector import VectorUnit


@cache
def stage_rows(unit: VectorUnit) -> int:
    """target[row, column, channel] = source[channel, first_row + row, first_column + column], zero outside the source.

    (source, channel_step, channels, height, width, first_row, first_column, rows, columns, target)
    channels       channels of source that exist; target has lanes of them
    first_column   at most 0
    target         (rows, columns, lanes), aligned, and lanes * lanes more floats, which may be overwritten
    """
    lanes = unit.lanes

    @c_function
    def stage(source, channel_step, channels, height, width, first_row, first_column, rows, columns, target):
        size = 4 * lanes
        for row in range(rows):
            line = target + row * columns * size
            own = first_row + row
            filled = 0
            if 0 <= own < height:
                filled = -first_column
                _zeros(lanes, line, filled)
                for column in range(0, min(width, columns - filled), lanes):
                    load_square(
                        lanes, source + (own * width + column) * 4, channel_step,
                        line + (filled + column) * size, size, width - column, channels,
                    )  # fmt: skip
                filled += (width + lanes - 1) // lanes * lanes
            _zeros(lanes, line + filled * size, columns - filled)

    return stage


@tile
def transform(
    builder, lanes, source, source_row, source_column, target, target_row, target_column, count, source_next,
    target_next, bias, *, kind, shape: TileShape,
):  # fmt: skip
    """target = M source N^T for tiles of vectors, with the matrices M and N of ``kind`` for columns and rows of the
    shape; plus the bias when kind is OUTPUT.

    source_row, source_column   from one row or column of a tile to the next
    count                       number of tiles, source_next and target_next apart
    bias                        address of one vector; not read unless kind is OUTPUT
    """
    down, along = matrix_of(kind, shape.m_h, shape.r_h), matrix_of(kind, shape.m_w, shape.r_w)
    size = 4 * lanes
    steps = source_next, target_next

    def one(state):
        lines = _walk(builder, state[0], source_row, len(down[0]))
        grid = [_walk(builder, line, source_column, len(along[0])) for line in lines]
        loaded = [[vec.load(builder, lanes, place, size) for place in line] for line in grid]
        columns = [apply(builder, down, list(column)) for column in zip(*loaded)]
        made = [apply(builder, along, list(row)) for row in zip(*columns)]
        added = vec.load(builder, lanes, bias) if kind == OUTPUT else None
        for values, line in zip(made, _walk(builder, state[1], target_row, len(made))):
            for value, place in zip(values, _walk(builder, line, target_column, len(values))):
                vec.store(builder, builder.fadd(value, added) if added is not None else value, place, size)
        return [builder.add(place, step) for place, step in zip(state, steps)]

    vec.counted_loop(builder, count, [source, target], one)


@instructions
def _zeros(builder, lanes, target, count):
    """Writes ``count`` vectors of zeros; none for count <= 0."""

    def one(state):
        vec.store(builder, vec.zeros(lanes), state[0], 4 * lanes)
        return [vec.offset(builder, state[0], 4 * lanes)]

    vec.counted_loop(builder, count, [target], one)


def _walk(builder, start, step, count):
    """``count`` addresses from ``start`` on, ``step`` apart."""
    places = [start]
    while len(places) < count:
        places.append(builder.add(places[-1], step))
    return places
