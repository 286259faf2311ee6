"""Dot products of bytes: the instruction of the machine for it, and functions that emit it.

A step multiplies four u8 activations with four s8 weights (``S16``: two and two) and adds the products to an int32 sum,
in every lane of a vector. No instruction may saturate, so the widest weights decide which one is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core.registry import cpu_target

from sslnet.kernels.simd import vector as vec
from sslnet.kernels.simd.vector import I32, Builder, Value

I8, I16 = ir.IntType(8), ir.IntType(16)

PLAIN, UBSW, S16, VNNI, USDOT, SDOT = range(6)
"""The ways to multiply, as numbers for the cache of compiled tiles.

PLAIN   any machine: multiplications of int32
UBSW    vpmaddubsw, vpmaddwd, vpaddd: pairs are added in 16 bits, so weights have at most 7 bits (2 * 255 * 63 < 2^15)
S16     vpmaddwd, vpaddd on activations and weights of 16 bits: any 8 bits
VNNI    vpdpbusd (AVX-512 VNNI, AVX-VNNI)
USDOT   usdot of AArch64 (i8mm)
SDOT    sdot of AArch64 (dotprod): activations less 128, which the bias corrects
"""


@dataclass(frozen=True)
class DotUnit:
    """A way to multiply bytes, with the int32 lanes of a vector and the number of vector registers.

    name     for reports
    most     the largest absolute value of a weight with which no sum saturates
    """

    name: str
    kind: int
    lanes: int
    registers: int
    most: int = 127

    @property
    def values(self) -> int:
        """Activations of a step: 4, or 2 of 16 bits."""
        return 2 if self.kind == S16 else 4

    @property
    def value_bytes(self) -> int:
        """Bytes of an activation in the window that a tile reads."""
        return 2 if self.kind == S16 else 1


UNITS: dict[str, tuple[frozenset[str], DotUnit]] = {
    "vnni512": (frozenset({"avx512vnni", "avx512bw"}), DotUnit("vnni", VNNI, 16, 32)),
    "vnni256": (frozenset({"avxvnni"}), DotUnit("avx-vnni", VNNI, 8, 16)),
    "ubsw512": (frozenset({"avx512bw"}), DotUnit("u8s7", UBSW, 16, 32, 63)),
    "s16_512": (frozenset({"avx512bw"}), DotUnit("s16", S16, 16, 32)),
    "ubsw": (frozenset({"avx2"}), DotUnit("u8s7", UBSW, 8, 16, 63)),
    "s16": (frozenset({"avx2"}), DotUnit("s16", S16, 8, 16)),
    "usdot": (frozenset({"i8mm"}), DotUnit("usdot", USDOT, 4, 32)),
    "sdot": (frozenset({"dotprod"}), DotUnit("sdot", SDOT, 4, 32)),
    "plain": (frozenset(), DotUnit("plain", PLAIN, 4, 16)),
}
"""All units by name, best first, with the features of the processor, in LLVM's names, that they need."""


@cache
def cpu_features() -> frozenset[str]:
    """The features that Numba compiles for, in LLVM's names; NUMBA_CPU_NAME and NUMBA_CPU_FEATURES override them."""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    enabled = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if triple.startswith(("aarch64", "arm64")):
        enabled |= {"dotprod"} if name.startswith("apple-m") else set()
        return frozenset(enabled & {"dotprod", "i8mm"})
    return frozenset(enabled - {"dotprod", "i8mm"})


@cache
def dot_units() -> dict[str, DotUnit]:
    """The units that this machine can run, best first."""
    return {name: unit for name, (needed, unit) in UNITS.items() if needed <= cpu_features()}


def dot_unit(most: int = 127) -> DotUnit:
    """The best unit of the machine for weights of at most this absolute value."""
    return next(unit for unit in dot_units().values() if most <= unit.most)


def best_weight_bits() -> int:
    """8 where 8-bit weights run at full speed, else 7: one bit less doubles the speed of AVX2 without VNNI."""
    return 8 if dot_unit(127) == dot_unit(63) else 7


# -- instructions ----------------------------------------------------------------------------------------------------


def kind_vector(kind: Any, count: int) -> ir.VectorType:
    return ir.VectorType(kind, count)


def constant(kind: Any, count: int, value: int | float) -> Value:
    return ir.Constant(ir.VectorType(kind, count), [value] * count)


def call(builder: Builder, name: str, result: Any, *args: Value) -> Value:
    """Calls an LLVM intrinsic, declared where it is first used."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), args)


def load_as(builder: Builder, kind: Any, address: Value, align: int = 1) -> Value:
    value = builder.load(vec.at(builder, address, kind))
    value.align = align
    return value


def load_weights(builder: Builder, kind: int, lanes: int, address: Value) -> Value:
    """The weights of a step: lanes times four s8, or (S16) lanes times two s8 widened to 16 bits."""
    if kind == S16:
        return builder.sext(load_as(builder, kind_vector(I8, 2 * lanes), address), kind_vector(I16, 2 * lanes))
    return load_as(builder, kind_vector(I8, 4 * lanes), address)


def load_activations(builder: Builder, kind: int, lanes: int, address: Value) -> Value:
    """The activations of a step in every lane."""
    word = vec.splat(builder, lanes, load_as(builder, I32, address))
    if kind == SDOT:
        word = builder.xor(word, constant(I32, lanes, -0x7F7F7F80))  # the sign bit of each byte
    return builder.bitcast(word, kind_vector(I16, 2 * lanes) if kind == S16 else kind_vector(I8, 4 * lanes))


def add_products(builder: Builder, kind: int, lanes: int, total: Value, x: Value, w: Value) -> Value:
    """total + the sum of the products of each lane's step."""
    sums = kind_vector(I32, lanes)
    if kind == VNNI:  # operands of int32: older LLVM declares them so, newer ones convert them
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        return call(builder, name, sums, total, builder.bitcast(x, sums), builder.bitcast(w, sums))
    if kind == UBSW:
        name = "llvm.x86.avx512.pmaddubs.w.512" if lanes == 16 else "llvm.x86.avx2.pmadd.ub.sw"
        pairs = call(builder, name, kind_vector(I16, 2 * lanes), x, w)
        return builder.add(total, add_pairs(builder, lanes, pairs, constant(I16, 2 * lanes, 1)))
    if kind == S16:
        return builder.add(total, add_pairs(builder, lanes, x, w))
    if kind in (USDOT, SDOT):
        name = f"llvm.aarch64.neon.{'usdot' if kind == USDOT else 'sdot'}.v4i32.v16i8"
        if kind == USDOT:
            return call(builder, name, sums, total, x, w)
        return call(builder, name, sums, total, x, w)
    for j in range(4):
        mine = [4 * lane + j for lane in range(lanes)]
        factors = [
            builder.zext(vec.shuffle(builder, x, x, mine), sums),
            builder.sext(vec.shuffle(builder, w, w, mine), sums),
        ]
        total = builder.add(total, builder.mul(*factors))
    return total


def add_pairs(builder: Builder, lanes: int, a: Value, b: Value) -> Value:
    """vpmaddwd: products of 16 bits, neighbours added in 32 bits."""
    name = "llvm.x86.avx512.pmaddw.d.512" if lanes == 16 else "llvm.x86.avx2.pmadd.wd"
    return call(builder, name, kind_vector(I32, lanes), a, b)
