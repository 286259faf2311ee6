"""Packing for the fully connected layer: its small matrices into blocks and panels, and sums back to rows.

How such functions are made and called: ``simd.tile``. Distances are in bytes.
"""

from __future__ import annotations

from functools import cache

from sslnet.kernels.runtime.compiler import c_function
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions
from sslnet.kernels.simd.vector import VectorUnit


@cache
def copy_vectors(unit: VectorUnit) -> int:
    """target[row, vector] = source[row, vector's lanes], zero outside source.

    (source, source_step, rows, columns, target, target_rows, row_step, vectors, vector_step)
    rows, columns          size of source
    target_rows, vectors   size of target, in rows and vectors
    row_step, vector_step  from one row or vector to the next, in target
    """
    lanes = unit.lanes

    @c_function
    def copy(source, source_step, rows, columns, target, target_rows, row_step, vectors, vector_step):
        for row in range(target_rows):
            there = columns if row < rows else 0
            line = source + row * source_step
            place = target + row * row_step
            for v in range(vectors):
                _copy_first(lanes, place + v * vector_step, line + v * lanes * 4, there - v * lanes, lanes)

    return copy


@cache
def copy_blocks(unit: VectorUnit) -> int:
    """target[block, row, i] = source[row, block * width + i], zero outside source.

    (source, source_step, rows, columns, target, width, blocks)
    """
    lanes = unit.lanes

    @c_function
    def copy(source, source_step, rows, columns, target, width, blocks):
        place = target
        for block in range(blocks):
            there = columns - block * width
            for row in range(rows):
                line = source + row * source_step + block * width * 4
                for i in range(0, width, lanes):
                    _copy_first(lanes, place + i * 4, line + i * 4, min(there, width) - i, width - i)
                place += width * 4

    return copy


@cache
def put_vectors(unit: VectorUnit) -> int:
    """target[row, columns] = source[row, vectors] + bias[columns], then ReLU.

    (source, row_step, rows, columns, target, target_step, bias, relu)
    row_step   from one row to the next, in source; the vectors lie side by side
    bias       (columns,); 0: none
    """
    lanes = unit.lanes

    @c_function
    def put(source, row_step, rows, columns, target, target_step, bias, relu):
        for row in range(rows):
            for i in range(0, columns, lanes):
                start = 0 if bias == 0 else bias + i * 4
                _put_first(
                    lanes, target + row * target_step + i * 4, source + row * row_step + i * 4, start,
                    columns - i, relu,
                )  # fmt: skip

    return put


@instructions
def _copy_first(builder, lanes, target, source, count, stored):
    """Writes the first ``stored`` lanes of target: the first ``count`` lanes of source, then zeros."""
    values = vec.masked_load(builder, lanes, source, vec.first_lanes(builder, lanes, count))
    vec.masked_store(builder, values, target, vec.first_lanes(builder, lanes, stored))


@instructions
def _put_first(builder, lanes, target, source, bias, count, relu):
    """Writes the first ``count`` lanes of target: source + bias (0: none), at least 0 if relu."""
    mask = vec.first_lanes(builder, lanes, count)
    wanted = builder.and_(mask, vec.splat(builder, lanes, builder.icmp_signed("!=", bias, vec.I64(0))))
    values = builder.fadd(vec.load(builder, lanes, source), vec.masked_load(builder, lanes, bias, wanted))
    values = vec.at_least(builder, values, vec.least_value(builder, lanes, relu))
    vec.masked_store(builder, values, target, mask)
