"""Flush denormals to zero, per thread: a pruned weight's momentum decays into denormals, which are ten times slower.

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
    """Sets MXCSR to (old & keep) | bits; returns the old value."""
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


@njit("int32(int32, boolean)", **COMMON)
def exchange_setting(setting, flush):
    """For compiled code: flushes denormals if ``flush``, else restores the setting; returns the previous one."""
    if _IS_X86:
        if flush:
            return _exchange_mxcsr(-1, FLUSH_TO_ZERO | DENORMALS_ARE_ZERO)
        return _exchange_mxcsr(0, setting)
    return 0


def flushed(fn: Callable[..., object], *args: Any) -> None:
    """Calls fn(*args) with denormals flushed, then restores the calling thread's setting, also after an interrupt."""
    setting = denormal_setting()
    try:
        flush_denormals()
        fn(*args)
    finally:
        try:
            restore_denormals(setting)
        except KeyboardInterrupt:  # before or inside the first call
            restore_denormals(setting)
            raise


def denormal_setting() -> int:
    """The calling thread's setting, an argument for restore_denormals."""
    return _exchange(-1, 0) if _IS_X86 else 0


def flush_denormals() -> int:
    """Makes the calling thread flush denormals; returns the previous setting, for restore_denormals."""
    return _exchange(-1, FLUSH_TO_ZERO | DENORMALS_ARE_ZERO) if _IS_X86 else 0


def restore_denormals(setting: int) -> None:
    """Restores the calling thread's setting that flush_denormals returned (rounding flags included)."""
    if _IS_X86:
        _exchange(0, setting)
