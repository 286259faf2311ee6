"""What moves pixels and weights into Winograd's domain and back, a vector of channels or filters at a time.

As in conv_tiles, each function returns the address of a compiled C function of int64 arguments; distances are in bytes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from zlib import crc32

from numba import types
from numba.extending import intrinsic

from sslnet.kernels.conv.transposes import _load_transposed
from sslnet.kernels.conv.winograd import matrices as winograd_matrices
from sslnet.kernels.conv.winograd.matrices import OUTPUT, apply, matrix_of
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import REVISION, VectorUnit, compiled, literal_values

MATRICES = REVISION ^ crc32(Path(winograd_matrices.__file__).read_bytes())
"""Part of the cache key, as vector.REVISION."""


@cache
def stage_rows(unit: VectorUnit) -> int:
    """target[row, column, channel] = source[channel, first_row + row, first_column + column], zero outside the source.

    (source, channel_step, channels, height, width, first_row, first_column, rows, columns, target)
    channels       those there are, from source on; target has lanes of them
    first_column   at most 0
    target         (rows, columns, lanes), aligned, and lanes * lanes floats more, which may be overwritten
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(10)
    def stage(source, channel_step, channels, height, width, first_row, first_column, rows, columns, target):
        size = 4 * lanes
        for row in range(rows):
            line = target + row * columns * size
            own = first_row + row
            filled = 0
            if 0 <= own < height:
                filled = -first_column
                _zeros(lanes, revision, line, filled)
                for column in range(0, min(width, columns - filled), lanes):
                    _load_transposed(
                        lanes, revision, source + (own * width + column) * 4, channel_step,
                        line + (filled + column) * size, size, width - column, channels,
                    )  # fmt: skip
                filled += (width + lanes - 1) // lanes * lanes
            _zeros(lanes, revision, line + filled * size, columns - filled)

    return stage


@cache
def transform(unit: VectorUnit, kind: int, m: int, r: int) -> int:
    """target = M source M^T for squares of vectors, M that of ``kind``; plus the bias when kind is OUTPUT.

    (source, source_row, source_column, target, target_row, target_column, count, source_next, target_next, bias)
    source_row, source_column   from one row or column of a square to the next
    count                       squares, source_next and target_next apart
    bias                        address of one vector; not read unless kind is OUTPUT
    """
    lanes, revision = unit.lanes, MATRICES

    @compiled(10)
    def run(
        source, source_row, source_column, target, target_row, target_column, count, source_next, target_next, bias
    ):
        _transform(
            lanes, kind, m, r, revision,
            source, source_row, source_column, target, target_row, target_column, count, source_next, target_next, bias,
        )  # fmt: skip

    return run


@intrinsic(prefer_literal=True)
def _transform(
    typingctx, lanes, kind, m, r, revision,
    source, source_row, source_column, target, target_row, target_column, count, source_next, target_next, bias,
):  # fmt: skip
    numbers = literal_values(lanes, kind, m, r, revision)
    if numbers is None:
        return None
    width, what, outputs, taps, _ = numbers
    matrix = matrix_of(what, outputs, taps)
    size = 4 * width

    def codegen(context, builder, signature, args):
        source, source_row, source_column, target, target_row, target_column, count, *steps, bias = args[5:]

        def squares(state):
            lines = _walk(builder, state[0], source_row, len(matrix[0]))
            grid = [_walk(builder, line, source_column, len(matrix[0])) for line in lines]
            loaded = [[vec.load(builder, width, place, size) for place in line] for line in grid]
            columns = [apply(builder, matrix, list(column)) for column in zip(*loaded)]
            made = [apply(builder, matrix, list(row)) for row in zip(*columns)]
            added = vec.load(builder, width, bias) if what == OUTPUT else None
            for values, line in zip(made, _walk(builder, state[1], target_row, len(made))):
                for value, place in zip(values, _walk(builder, line, target_column, len(made))):
                    vec.store(builder, builder.fadd(value, added) if added is not None else value, place, size)
            return [builder.add(place, step) for place, step in zip(state, steps)]

        vec.counted_loop(builder, count, [source, target], squares)
        return context.get_dummy_value()

    return types.void(lanes, kind, m, r, revision, *[types.int64] * 10), codegen


@intrinsic(prefer_literal=True)
def _zeros(typingctx, lanes, revision, target, count):
    """count vectors of zeros; none for count <= 0."""
    numbers = literal_values(lanes, revision)
    if numbers is None:
        return None
    width, _ = numbers

    def codegen(context, builder, signature, args):
        target, count = args[2:]

        def one(state):
            vec.store(builder, vec.zeros(width), state[0], 4 * width)
            return [vec.offset(builder, state[0], 4 * width)]

        vec.counted_loop(builder, count, [target], one)
        return context.get_dummy_value()

    return types.void(lanes, revision, *[types.int64] * 2), codegen


def _walk(builder, start, step, count):
    """Addresses from start on, step apart."""
    places = [start]
    while len(places) < count:
        places.append(builder.add(places[-1], step))
    return places
