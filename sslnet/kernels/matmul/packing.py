"""What packs the small matrices of the fully connected layer, and brings sums out.

As in fc_tiles, each function returns the address of a compiled C function of int64 arguments; distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from numba import types
from numba.extending import intrinsic

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import REVISION, VectorUnit, compiled, literal_values


@cache
def copy_vectors(unit: VectorUnit) -> int:
    """target[row, vector] = source[row, vector's lanes], zero where there is nothing in source.

    (source, source_step, rows, columns, target, target_rows, row_step, vectors, vector_step)
    rows, columns          what there is of source
    target_rows, vectors   what is written of target, vectors of lanes
    row_step, vector_step  from one to the next, in target
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(9)
    def copy(source, source_step, rows, columns, target, target_rows, row_step, vectors, vector_step):
        for row in range(target_rows):
            there = columns if row < rows else 0
            line = source + row * source_step
            place = target + row * row_step
            for v in range(vectors):
                _copy_first(lanes, revision, place + v * vector_step, line + v * lanes * 4, there - v * lanes, lanes)

    return copy


@cache
def copy_blocks(unit: VectorUnit) -> int:
    """target[block, row, i] = source[row, block * width + i], zero where there is nothing in source.

    (source, source_step, rows, columns, target, width, blocks)
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(7)
    def copy(source, source_step, rows, columns, target, width, blocks):
        place = target
        for block in range(blocks):
            there = columns - block * width
            for row in range(rows):
                line = source + row * source_step + block * width * 4
                for i in range(0, width, lanes):
                    _copy_first(lanes, revision, place + i * 4, line + i * 4, min(there, width) - i, width - i)
                place += width * 4

    return copy


@cache
def put_vectors(unit: VectorUnit) -> int:
    """target[row, columns] = source[row, vectors] + bias[columns], then ReLU.

    (source, row_step, rows, columns, target, target_step, bias, relu)
    row_step   from one row to the next, in source; the vectors lie side by side
    bias       (columns,); 0: none
    """
    lanes, revision = unit.lanes, REVISION

    @compiled(8)
    def put(source, row_step, rows, columns, target, target_step, bias, relu):
        for row in range(rows):
            for i in range(0, columns, lanes):
                start = 0 if bias == 0 else bias + i * 4
                _put_first(
                    lanes, revision, target + row * target_step + i * 4, source + row * row_step + i * 4, start,
                    columns - i, relu,
                )  # fmt: skip

    return put


@intrinsic(prefer_literal=True)
def _copy_first(typingctx, lanes, revision, target, source, count, stored):
    """The first ``stored`` lanes of target = the first ``count`` lanes of source, then zeros."""
    numbers = literal_values(lanes, revision)
    if numbers is None:
        return None
    width, _ = numbers

    def codegen(context, builder, signature, args):
        target, source, count, stored = args[2:]
        values = vec.masked_load(builder, width, source, vec.first_lanes(builder, width, count))
        vec.masked_store(builder, values, target, vec.first_lanes(builder, width, stored))
        return context.get_dummy_value()

    return types.void(lanes, revision, *[types.int64] * 4), codegen


@intrinsic(prefer_literal=True)
def _put_first(typingctx, lanes, revision, target, source, bias, count, relu):
    """The first ``count`` lanes of target = source + bias (0: none), at least 0 if relu."""
    numbers = literal_values(lanes, revision)
    if numbers is None:
        return None
    width, _ = numbers

    def codegen(context, builder, signature, args):
        target, source, bias, count, relu = args[2:]
        mask = vec.first_lanes(builder, width, count)
        wanted = builder.and_(mask, vec.splat(builder, width, builder.icmp_signed("!=", bias, vec.I64(0))))
        values = builder.fadd(vec.load(builder, width, source), vec.masked_load(builder, width, bias, wanted))
        values = vec.at_least(builder, values, vec.least_value(builder, width, relu))
        vec.masked_store(builder, values, target, mask)
        return context.get_dummy_value()

    return types.void(lanes, revision, *[types.int64] * 5), codegen
