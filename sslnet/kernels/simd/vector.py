"""The vector unit of the machine, and functions that emit LLVM IR for it: vectors, loads, stores, multiply-adds, loops.

Each function adds instructions at the builder's position; ``simd.tile`` makes callable functions of them. Addresses are
integers, in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

I1, I32, I64, F32 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.FloatType()

Value = Any
Builder = Any


@dataclass(frozen=True)
class VectorUnit:
    """A vector unit: the float32 lanes of one vector, and the number of vector registers."""

    name: str
    lanes: int
    registers: int

    @property
    def bytes(self) -> int:
        return 4 * self.lanes


UNITS = {
    "avx512f": VectorUnit("AVX-512", 16, 32),
    "avx2": VectorUnit("AVX2", 8, 16),
    "neon": VectorUnit("NEON", 4, 32),
}
"""The known vector units by the feature that LLVM reports, best first."""

GENERIC = VectorUnit("generic", 4, 16)


@cache
def vector_unit() -> VectorUnit:
    """The vector unit that Numba compiles for; NUMBA_CPU_NAME and NUMBA_CPU_FEATURES (set both) override the
    machine's."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    enabled = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if triple.startswith(("aarch64", "arm64")):
        enabled.add("neon")  # always present, but not always listed
    return next((unit for feature, unit in UNITS.items() if feature in enabled), GENERIC)


def vector_type(lanes: int) -> ir.VectorType:
    return ir.VectorType(F32, lanes)


def zeros(lanes: int) -> Value:
    return ir.Constant(vector_type(lanes), [0.0] * lanes)


def at(builder: Builder, address: Value, kind: Any) -> Value:
    """The address as a pointer to kind."""
    return builder.inttoptr(address, kind.as_pointer())


def offset(builder: Builder, address: Value, distance: int) -> Value:
    """address + distance bytes."""
    return builder.add(address, I64(distance)) if distance else address


def line(builder: Builder, address: Value, step: Value, i: int) -> Value:
    """address + i * step."""
    return builder.add(address, builder.mul(step, I64(i))) if i else address


def load(builder: Builder, lanes: int, address: Value, align: int = 4) -> Value:
    vector = builder.load(at(builder, address, vector_type(lanes)))
    vector.align = align
    return vector


def store(builder: Builder, vector: Value, address: Value, align: int = 4) -> None:
    builder.store(vector, at(builder, address, vector.type)).align = align


def splat(builder: Builder, lanes: int, scalar: Value) -> Value:
    """A vector with all lanes equal to the scalar (of any type)."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def broadcast(builder: Builder, lanes: int, address: Value) -> Value:
    """A vector with all lanes equal to the float at the address."""
    return splat(builder, lanes, builder.load(at(builder, address, F32)))


def multiply_add(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once if the machine has an instruction for it, else twice.

    ``llvm.fma`` would always round once, but without an instruction it calls a function per lane, many times slower.
    """
    kind = a.type
    name = f"llvm.fmuladd.v{kind.count}f32"
    return builder.call(_declared(builder, name, ir.FunctionType(kind, [kind] * 3)), [a, b, c])


def first_lanes(builder: Builder, lanes: int, count: Value) -> Value:
    """The mask of the first ``count`` lanes; count (int64, within 32 bits) may be negative or larger than lanes."""
    numbers = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, splat(builder, lanes, builder.trunc(count, I32)))


def masked_load(builder: Builder, lanes: int, address: Value, mask: Value) -> Value:
    """Loads the lanes of the mask; other lanes are not read and are zero."""
    kind = vector_type(lanes)
    function = ir.FunctionType(kind, [kind.as_pointer(), I32, mask.type, kind])
    call = _declared(builder, f"llvm.masked.load.v{lanes}f32.p0", function)
    return builder.call(call, [at(builder, address, kind), I32(4), mask, zeros(lanes)])


def masked_store(builder: Builder, vector: Value, address: Value, mask: Value) -> None:
    """Writes the lanes of the mask and nothing else."""
    kind = vector.type
    function = ir.FunctionType(ir.VoidType(), [kind, kind.as_pointer(), I32, mask.type])
    call = _declared(builder, f"llvm.masked.store.v{kind.count}f32.p0", function)
    builder.call(call, [vector, at(builder, address, kind), I32(4), mask])


def prefetch(builder: Builder, address: Value, *, to_write: bool = False, second_level: bool = False) -> None:
    """Prefetches the cache line at an address, also an invalid one, into the first-level or the second-level cache."""
    pointer = at(builder, address, ir.IntType(8))
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    numbers = (int(to_write), 2 if second_level else 3, 1)
    builder.call(_declared(builder, "llvm.prefetch.p0", kind), [pointer, *map(I32, numbers)])


def shuffle(builder: Builder, a: Value, b: Value, lanes: list[int]) -> Value:
    """The given lanes of both vectors, in this order; lanes of b are numbered after those of a."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def transpose(builder: Builder, rows: list[Value]) -> list[Value]:
    """The transpose of a square of vectors, in log2(lanes) rounds that swap blocks of 1, 2, 4 ... lanes."""
    lanes = len(rows)
    block = 1
    while block < lanes:
        low = [lanes + (t ^ block) if t & block else t for t in range(lanes)]
        high = [lanes + t if t & block else t | block for t in range(lanes)]
        swapped = list(rows)
        for i in range(lanes):
            if not i & block:
                a, b = rows[i], rows[i | block]
                swapped[i], swapped[i | block] = shuffle(builder, a, b, low), shuffle(builder, a, b, high)
        rows = swapped
        block *= 2
    return rows


def zip_lanes(builder: Builder, a: Value, b: Value) -> list[Value]:
    """a0 b0 a1 b1 ..., as two vectors."""
    lanes = a.type.count
    order = [i // 2 + (i % 2) * lanes for i in range(2 * lanes)]
    return [shuffle(builder, a, b, order[:lanes]), shuffle(builder, a, b, order[lanes:])]


def even_lanes(builder: Builder, a: Value, b: Value) -> Value:
    """a0 a2 ... b0 b2 ..."""
    return shuffle(builder, a, b, [2 * i for i in range(a.type.count)])


def odd_lanes(builder: Builder, a: Value, b: Value) -> Value:
    """a1 a3 ... b1 b3 ..."""
    return shuffle(builder, a, b, [2 * i + 1 for i in range(a.type.count)])


def sum_lanes(builder: Builder, vector: Value) -> Value:
    """The sum of the lanes as a float, in the compiler's order."""
    name = f"llvm.vector.reduce.fadd.v{vector.type.count}f32"
    function = _declared(builder, name, ir.FunctionType(F32, [F32, vector.type]))
    return builder.call(function, [F32(0.0), vector], fastmath=("reassoc",))


def least_value(builder: Builder, lanes: int, relu: Value) -> Value:
    """The argument ``least`` with which at_least is ReLU (relu != 0) or the identity (relu = 0)."""
    lowest = ir.Constant(vector_type(lanes), [float("-inf")] * lanes)
    return builder.select(builder.icmp_signed("!=", relu, I64(0)), zeros(lanes), lowest)


def at_least(builder: Builder, vector: Value, least: Value) -> Value:
    """The larger of both values in each lane; NaN stays NaN."""
    return builder.select(builder.fcmp_ordered("<", vector, least), least, vector)


def either(
    builder: Builder, condition: Value, yes: Callable[[], list[Value]], no: Callable[[], list[Value]], kind: Any
) -> list[Value]:
    """The values (all of one kind) of yes() if the condition holds, else of no()."""
    with builder.if_else(condition) as (then, otherwise):
        with then:
            first, first_end = yes(), builder.block
        with otherwise:
            second, second_end = no(), builder.block
    chosen = [builder.phi(kind) for _ in first]
    for phi, a, b in zip(chosen, first, second, strict=True):
        phi.add_incoming(a, first_end)
        phi.add_incoming(b, second_end)
    return chosen


def counted_loop(
    builder: Builder, count: Value, carried: list[Value], body: Callable[[list[Value]], list[Value]]
) -> list[Value]:
    """Emits a loop that runs ``body`` ``count`` times (none for count <= 0) on the carried values; returns the last
    ones."""
    before = builder.block
    inside, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", count, I64(0)), inside, after)
    builder.position_at_end(inside)
    left = builder.phi(I64)
    left.add_incoming(count, before)
    state = [builder.phi(value.type) for value in carried]
    for phi, value in zip(state, carried, strict=True):
        phi.add_incoming(value, before)
    following = body(list(state))
    end = builder.block
    remaining = builder.sub(left, I64(1))
    left.add_incoming(remaining, end)
    for phi, value in zip(state, following, strict=True):
        phi.add_incoming(value, end)
    builder.cbranch(builder.icmp_signed(">", remaining, I64(0)), inside, after)
    builder.position_at_end(after)
    result = [builder.phi(value.type) for value in carried]
    for phi, first, last in zip(result, carried, following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, end)
    return result


def _declared(builder: Builder, name: str, kind: ir.FunctionType) -> Value:
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


@intrinsic
def integer_at(typingctx, where):
    """The int64 at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(at(builder, args[0], I64))

    return types.int64(types.int64), codegen


@intrinsic
def call_tile(typingctx, tile, arguments):
    """Calls the compiled tile at address ``tile`` with a tuple of int64; the address is known at run time only, so that
    a caller is one compiled function for all tiles."""
    if not isinstance(arguments, types.UniTuple) or arguments.dtype != types.int64:
        return None
    signature = types.void(types.int64, arguments)

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64] * arguments.count)
        numbers = [builder.extract_value(args[1], i) for i in range(arguments.count)]
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), numbers)
        return context.get_dummy_value()

    return signature, codegen
