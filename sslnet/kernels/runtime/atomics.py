"""Instructions that Numba has no functions for: atomic loads and stores, the pause of a spin loop, calls by address."""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

I64 = ir.IntType(64)

_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "amd64": ("llvm.x86.sse2.pause", ()),
    "aarch64": ("llvm.aarch64.hint", (1,)),
    "arm64": ("llvm.aarch64.hint", (1,)),
}
_PAUSE = _PAUSES.get(platform.machine().lower())
"""The machine's pause instruction, which yields the core to its other hardware thread; None: none is known."""


@intrinsic
def load(typingctx, where):
    """The int64 at an address, which another thread writes: an atomic load (acquire)."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store(typingctx, where, value):
    """Writes the int64 at an address, which other threads read: an atomic store (release)."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        builder.store_atomic(args[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def exchange(typingctx, where, value):
    """Writes the int64 at an address and returns the old one, as one operation in the same order for all threads."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("xchg", builder.inttoptr(args[0], I64.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def word_at(typingctx, where):
    """The int64 at an address: a plain load."""

    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], I64.as_pointer()))

    return types.int64(types.int64), codegen


@intrinsic
def clear_word(typingctx, where):
    """Sets the int32 at an address to 0: a plain store."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(32)
        builder.store(word(0), builder.inttoptr(args[0], word.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def pause(typingctx):
    """One turn of a spin loop."""

    def codegen(context, builder, signature, args):
        if _PAUSE is not None:
            name, numbers = _PAUSE
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)] * len(numbers))
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(function, [ir.IntType(32)(number) for number in numbers])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call_two(typingctx, function, first, second):
    """The result of the function of two int64 at an address."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(I64, [I64] * 2)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def call_seven(typingctx, function, a, b, c, d, e, f, g):
    """The result of the function of seven int64 at an address: ``syscall`` of the C library."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(I64, [I64] * 7)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(*[types.int64] * 8), codegen
