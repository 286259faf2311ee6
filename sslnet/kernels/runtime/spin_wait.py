"""Waiting for a moment without sleeping: to wake a thread that sleeps takes longer than many a piece of work."""

from __future__ import annotations

import platform
from functools import cache
from time import perf_counter

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sslnet.kernels.runtime.compiler import COMMON
from sslnet.kernels.runtime.memory import aligned_zeros

_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "amd64": ("llvm.x86.sse2.pause", ()),
    "aarch64": ("llvm.aarch64.hint", (1,)),
    "arm64": ("llvm.aarch64.hint", (1,)),
}
_PAUSE = _PAUSES.get(platform.machine().lower())
"""The instruction that leaves the core to its other thread for a moment, by machine; None: none is known."""


@cache
def pauses_per_second() -> float:
    """How many turns ``spin`` makes in a second, measured once (1 ms)."""
    never = aligned_zeros(1, np.int64)
    place, turns, least = never.ctypes.data, 2000, float("inf")
    for _ in range(5):
        begin = perf_counter()
        spin(0, 0, place, 1, turns, 0)
        least = min(least, perf_counter() - begin)
    return turns / least


@intrinsic
def _load(typingctx, where):
    """The int64 at an address, as another thread has written it."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _store(typingctx, where, value):
    """Writes the int64 at an address, for other threads to see."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        builder.store_atomic(args[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def _pause(typingctx):
    def codegen(context, builder, signature, args):
        if _PAUSE is not None:
            name, numbers = _PAUSE
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)] * len(numbers))
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(function, [ir.IntType(32)(number) for number in numbers])
        return context.get_dummy_value()

    return types.void(), codegen


@njit("boolean(int64, int64, int64, int64, int64, int64)", **COMMON)
def spin(told, value, watched, wanted, most, lead):
    """Writes ``value`` to ``told`` (0: nowhere), then waits until there is at least ``wanted`` at ``watched``.

    told, watched   addresses of int64
    most            turns of the loop after which it gives up; returns whether it did not
    lead            turns it still makes after it has seen what it waited for
    """
    if told != 0:
        _store(told, value)
    for _ in range(most):
        if _load(watched) >= wanted:
            for _ in range(lead):
                _pause()
            return True
        _pause()
    return False
