"""The machine code that Numba has for a kernel, to be called without Python.

    entry = native_entry(kernel, args)
    entry.trampoline, entry.function     addresses; trampoline(function, words) calls the kernel and returns its status
    entry.words                          the arguments as 8-byte words, as the trampoline reads them

Numba calls a compiled function with its own convention: int32 f(result**, exception**, flattened arguments). An array
is flattened to (memory info, parent, items, item size, data, shape, strides), None to a null pointer, a tuple to its
elements. A trampoline loads such arguments from a row of words. There is one for each list of machine types, compiled
in about 40 ms and cached on disk; kernels are neither compiled again nor wrapped.

This is the only file that knows these internals of Numba. They may change with its version, so ``works`` calls a kernel with
an argument of each kind before the first use, and where that fails nothing is called natively.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from sslnet.kernels.runtime.compiler import exact_kernel, status_function

I64 = ir.IntType(64)

_TYPES: dict[str, Any] = {
    "l": I64,
    "w": ir.IntType(32),
    "h": ir.IntType(16),
    "b": ir.IntType(8),
    "t": ir.IntType(1),
    "f": ir.FloatType(),
    "d": ir.DoubleType(),
    "p": ir.IntType(8).as_pointer(),
}
"""The machine types of flattened arguments, by the letters that name a trampoline."""
_LETTERS = {str(kind): letter for letter, kind in _TYPES.items()}


class NativeEntry(NamedTuple):
    """A compiled kernel with its arguments: see the module.

    starts   the first word of each argument
    alive    what must live as long as the addresses are used
    """

    trampoline: int
    function: int
    words: list[int]
    starts: list[int]
    alive: Any


def is_kernel(function: object) -> bool:
    """Whether the function is compiled by Numba."""
    return isinstance(function, Dispatcher)


def native_entry(kernel: Any, args: Sequence[Any]) -> NativeEntry:
    """The native code of a kernel for these arguments, compiled if it is not yet.

    raises TypeError for an argument that cannot be flattened, or for a kernel that returns something
    """
    kinds = tuple(map(typeof, args))
    found = kernel.overloads.get(kinds)
    if found is None:
        kernel.compile(kinds)
        found = kernel.overloads.get(kinds)
    if found is None or found.objectmode or found.signature.return_type != types.none:
        raise TypeError(f"{kernel.py_func.__name__} cannot be called natively with {kinds}")
    words: list[int] = []
    starts = []
    for kind, value in zip(kinds, args, strict=True):
        starts.append(len(words))
        _flatten(kind, value, words)
    letters = _letters(found)
    if len(letters) != len(words):
        raise TypeError(f"{kernel.py_func.__name__}: {len(words)} words for {letters}")
    address = found.library.get_pointer_to_function(found.fndesc.llvm_func_name)
    return NativeEntry(_trampoline(letters), address, words, starts, kernel)


@cache
def works() -> bool:
    """Whether kernels can be called natively with this version of Numba: calls one of every kind of argument."""
    try:
        return _works()
    except Exception:  # whatever changed inside Numba: today's path needs none of it
        return False


def _works() -> bool:
    x, y, whole = np.arange(24, dtype=np.float32).reshape(4, 6), np.zeros((6, 4), np.float32), np.ones(3, np.int64)
    record = np.zeros(1, np.dtype([("number", np.int64)]))
    record["number"] = 5
    args = (0, 4, 2, x[:, ::2], None, (y.T, whole), np.float32(0.5), 0.25, True, np.int32(-7), np.uint8(200), record)
    by_python, natively = [np.zeros(8), np.zeros(8)]
    _every_kind(*args, by_python)
    if run_once(native_entry(_every_kind, (*args, natively))) != 0:
        return False
    failing = native_entry(_fails, (1,))
    return bool(by_python.any()) and np.array_equal(by_python, natively) and run_once(failing) != 0


def run_once(entry: NativeEntry) -> int:
    """Calls the entry with its words; returns 0, or another number if the kernel raised an exception."""
    import ctypes

    words = np.array(entry.words, np.int64)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(entry.trampoline)
    return int(call(entry.function, words.ctypes.data))


@exact_kernel
def _every_kind(i0, i1, part, x, nothing, pair, single, double, flag, small, byte, record, out):
    """A kernel with arguments of all kinds."""
    total = 0.0
    for i in range(i0, i1):
        for j in range(x.shape[1]):
            total += x[i, j] * pair[0][i, j] + x[i, j]
    out[0] = total
    out[1] = 1 if nothing is None else 2
    out[2] = single
    out[3] = double
    out[4] = part if flag else -part
    out[5] = small
    out[6] = byte
    out[7] = record[0].number + pair[1].size


@exact_kernel
def _fails(number):
    """A kernel that raises an exception."""
    if number:
        raise ValueError("as expected")


def _letters(found: Any) -> str:
    """The machine types of the flattened arguments of a compile result."""
    convention = found.target_context.call_conv
    kind = convention.get_function_type(found.fndesc.restype, found.fndesc.argtypes)
    return "".join(_LETTERS.get(str(one), "p" if isinstance(one, ir.PointerType) else "?") for one in kind.args[2:])


def _flatten(kind: Any, value: Any, words: list[int]) -> None:
    """Appends the words of an argument of the type ``kind``."""
    if isinstance(kind, types.Array):
        interface = value.__array_interface__
        words += [0, 0, value.size, value.itemsize, interface["data"][0], *value.shape, *value.strides]
    elif isinstance(kind, types.NoneType):
        words.append(0)
    elif isinstance(kind, types.BaseTuple):
        elements: Any = kind
        for one, element in zip(elements, value, strict=True):
            _flatten(one, element, words)
    elif isinstance(kind, (types.Boolean, types.Integer)):
        words.append(_signed(int(value)))
    elif isinstance(kind, types.Float) and kind.bitwidth in (32, 64):
        bits = np.zeros(1, np.int64)
        bits.view(np.float32 if kind.bitwidth == 32 else np.float64)[0] = value
        words.append(int(bits[0]))
    else:
        raise TypeError(f"an argument of the type {kind} cannot be passed natively")


def _signed(number: int) -> int:
    """The number with the same 64 bits in the range of int64."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


@cache
def _trampoline(letters: str) -> int:
    """The address of the function that loads arguments of these machine types and calls."""
    if not set(letters) <= set(_TYPES):
        raise TypeError(f"unknown machine types: {letters}")

    def call(function, words):
        return _call_flat(letters, function, words)

    return status_function(call)


@intrinsic(prefer_literal=True)
def _call_flat(typingctx, letters, function, words):
    """Calls the function with the arguments that stand in the words; returns its status."""
    if not isinstance(letters, types.StringLiteral):
        return None
    kinds = [_TYPES[letter] for letter in letters.literal_value]

    def codegen(context, builder, signature, args):
        head = context.call_conv.get_function_type(types.none, ()).args[:2]
        kind = ir.FunctionType(ir.IntType(32), [*head, *kinds])
        places = [cgutils.alloca_once(builder, one.pointee) for one in head]
        values = []
        for k, one in enumerate(kinds):
            place = builder.add(args[2], I64(8 * k))
            values.append(builder.load(builder.inttoptr(place, one.as_pointer())))
        status = builder.call(builder.inttoptr(args[1], kind.as_pointer()), [*places, *values])
        return builder.sext(status, I64)

    return types.int64(letters, types.int64, types.int64), codegen
