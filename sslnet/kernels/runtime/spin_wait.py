"""Spin-waiting for another thread, because the wake-up of a sleeping thread takes longer than a short parallel
region."""

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
"""The machine's pause instruction, which yields the core to its other hardware thread; None: none is known."""


@cache
def pauses_per_second() -> float:
    """The number of iterations of ``spin`` per second, measured once (1 ms)."""
    never = aligned_zeros(1, np.int64)
    place, turns, least = never.ctypes.data, 2000, float("inf")
    for _ in range(5):
        begin = perf_counter()
        spin(0, 0, place, 1, turns, 0)
        least = min(least, perf_counter() - begin)
    return turns / least


@intrinsic
def _load(typingctx, where):
    """An atomic load of the int64 at an address, which another thread writes."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _store(typingctx, where, value):
    """An atomic store of the int64 at an address, which other threads read."""

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
    """Writes ``value`` to ``told`` (0: nowhere), then waits until the value at ``watched`` is at least ``wanted``.

    told, watched   addresses of int64
    most            iterations of the loop until it gives up; returns False if it gave up, else True
    lead            further iterations after the value was seen
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
