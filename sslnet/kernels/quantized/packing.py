"""Layouts of quantised arrays: activations as rows of pixels, weights in the order in which tiles read them."""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from sslnet.errors import ShapeError
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.quantized.dot import I8, I16, DotUnit, kind_vector, load_as
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.tile import instructions
from sslnet.kernels.simd.vector import I1, I64


def pixel_bytes(channels: int) -> int:
    """Bytes from one pixel to the next: the channels, rounded up to four."""
    return -(-channels // 4) * 4


def pack_rows(rows: np.ndarray, unit: DotUnit, vectors: int) -> np.ndarray:
    """Weights (filters, lines, values) as (blocks, lines, steps, vectors * lanes, values of a step) s8, zeros in the rest."""
    filters, lines, values = rows.shape
    width, each = unit.lanes * vectors, unit.values
    steps = -(-values // each)
    blocks = -(-filters // width)
    full = np.zeros((blocks * width, lines, steps * each), np.int8)
    full[:filters, :, :values] = rows
    packed = aligned_zeros((blocks, lines, steps, width, each), np.int8)
    packed[...] = full.reshape(blocks, width, lines, steps, each).transpose(0, 2, 3, 1, 4)
    return packed


def check_sums(geometry: ConvGeometry, weights: np.ndarray, bias: np.ndarray, most: int) -> None:
    """Raises ShapeError unless weights (filters, channels / groups, kernel_h, kernel_w) are whole numbers that the unit can
    multiply, and no sum can leave int32."""
    g = geometry
    for name, array, shape in (("weights", weights, g.weight_shape), ("bias", bias, (g.filters,))):
        if array.shape != shape:
            raise ShapeError(f"{name} must have shape {shape}, not {array.shape}")
        if array.dtype.kind not in "iu":
            raise ShapeError(f"{name} must be whole numbers, not {array.dtype}")
    largest = int(np.abs(weights.astype(np.int64)).max(initial=0))
    if largest > most:
        raise ShapeError(f"weights of up to {most} can be multiplied, not {largest}")
    sums = np.abs(weights.astype(np.int64)).reshape(g.filters, -1).sum(axis=1) * 255 + np.abs(bias.astype(np.int64))
    if sums.max(initial=0) >= 2**31:
        raise ShapeError(f"sums of up to {int(sums.max())} do not fit 32 bits")


@instructions
def copy_bytes(builder, lanes, target, source, count):
    """Copies ``count`` bytes between places that do not overlap."""
    pointers = [vec.at(builder, place, I8) for place in (target, source)]
    kind = ir.FunctionType(ir.VoidType(), [pointers[0].type, pointers[1].type, I64, I1])
    name = "llvm.memcpy.p0.p0.i64"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, [*pointers, count, I1(0)])


@instructions
def set_bytes(builder, lanes, target, value, count):
    """Sets ``count`` bytes."""
    pointer = vec.at(builder, target, I8)
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I8, I64, I1])
    name = "llvm.memset.p0.i64"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, [pointer, builder.trunc(value, I8), count, I1(0)])


@instructions
def set_words(builder, lanes, target, value, count):
    """Sets ``count`` integers of 16 bits."""
    word = builder.trunc(value, I16)
    many = vec.splat(builder, lanes, word)

    def block(state):
        builder.store(many, vec.at(builder, state[0], many.type)).align = 2
        return [vec.offset(builder, state[0], 2 * lanes)]

    def one(state):
        builder.store(word, vec.at(builder, state[0], I16))
        return [vec.offset(builder, state[0], 2)]

    (place,) = vec.counted_loop(builder, builder.sdiv(count, I64(lanes)), [target], block)
    vec.counted_loop(builder, builder.srem(count, I64(lanes)), [place], one)


@instructions
def widen_bytes(builder, lanes, target, source, count):
    """Copies ``count`` u8 as integers of 16 bits."""

    def block(state):
        to, given = state
        values = builder.zext(load_as(builder, kind_vector(I8, lanes), given), kind_vector(I16, lanes))
        builder.store(values, vec.at(builder, to, values.type)).align = 2
        return [vec.offset(builder, to, 2 * lanes), vec.offset(builder, given, lanes)]

    def one(state):
        to, given = state
        builder.store(builder.zext(load_as(builder, I8, given), I16), vec.at(builder, to, I16))
        return [vec.offset(builder, to, 2), vec.offset(builder, given, 1)]

    state = vec.counted_loop(builder, builder.sdiv(count, I64(lanes)), [target, source], block)
    vec.counted_loop(builder, builder.srem(count, I64(lanes)), state, one)
