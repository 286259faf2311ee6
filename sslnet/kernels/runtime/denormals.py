"""Flush denormals to zero, thread by thread: a pruned weight's momentum decays into denormals, which are an order slower.

The x86 control word MXCSR holds two bits, flush-to-zero (results) and denormals-are-zero (operands); it belongs to the
thread that sets it. Elsewhere both functions do nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sslnet.kernels.runtime.compiler import COMMON

FLUSH_TO_ZERO = 0x8000
DENORMALS_ARE_ZERO = 0x0040

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


@intrinsic
def _exchange_mxcsr(typingctx, keep, bits):
    """MXCSR becomes (old & keep) | bits; returns old."""
    signature = types.int32(types.int32, types.int32)

    def codegen(context, builder, signature, args):
        word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer])
        store = builder.module.declare_intrinsic("llvm.x86.sse.stmxcsr", (), kind)
        load = builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), kind)
        slot = builder.alloca(word)
        address = builder.bitcast(slot, pointer)
        builder.call(store, [address])
        old = builder.load(slot)
        builder.store(builder.or_(builder.and_(old, args[0]), args[1]), slot)
        builder.call(load, [address])
        return old

    return signature, codegen


@njit("int32(int32, int32)", **COMMON)
def _exchange(keep, bits):
    return _exchange_mxcsr(keep, bits)


def flushed(fn: Callable[..., object], *args: Any) -> None:
    """Calls fn(*args) with denormals flushed, and leaves the calling thread's setting as it was, interrupts included."""
    setting = denormal_setting()
    try:
        flush_denormals()
        fn(*args)
    finally:
        try:
            restore_denormals(setting)
        except KeyboardInterrupt:  # it may have come first
            restore_denormals(setting)
            raise


def denormal_setting() -> int:
    """The calling thread's setting, for restore_denormals."""
    return _exchange(-1, 0) if _IS_X86 else 0


def flush_denormals() -> int:
    """Makes the calling thread flush denormals; returns the setting to give back to restore_denormals."""
    return _exchange(-1, FLUSH_TO_ZERO | DENORMALS_ARE_ZERO) if _IS_X86 else 0


def restore_denormals(setting: int) -> None:
    """Gives the calling thread the setting that flush_denormals returned (rounding flags included)."""
    if _IS_X86:
        _exchange(0, setting)
