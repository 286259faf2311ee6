"""Micro-kernels from emitters: Python functions that write a loop as LLVM IR, for one vector width and one tile.

    @tile
    def add(builder, lanes, x, y, count, *, vectors): ...

    builder   the LLVM builder, at the place where instructions are added
    lanes     number of float32 in a vector
    x, ...    run-time values of the emitted code: int64 numbers or addresses in bytes
    vectors   compile-time numbers, keyword only; a dataclass of numbers stands for all of its fields

``add(unit, vectors=4)`` is then the address of a compiled C function (x, y, count), to be called through ``call_tile``.
It is compiled once per machine, in about 30 ms: Numba's cache key contains the numbers, and the name and features of
the processor. ``@instructions`` makes a function that Numba functions call instead, ``add(lanes, 4, x, y, count)``; its
instructions are inlined at the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import astuple, fields, is_dataclass
from functools import cache, wraps
from inspect import Parameter
from typing import Any, get_type_hints

from numba import types
from numba.extending import intrinsic

from sslnet.kernels.runtime.compiler import c_function
from sslnet.kernels.simd.vector import VectorUnit


def tile(emit: Callable[..., None]) -> Callable[..., int]:
    """Makes a function (unit, numbers ...) -> address of the C function that the emitter writes; numbers also by
    position."""
    values, numbers = _parameters(emit)
    code = instructions(emit)
    given = inspect.Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in numbers])

    @cache
    def compiled(unit: VectorUnit, *constants: int) -> int:
        return c_function(_caller(emit, code, values, [*_flat_names(numbers)])(unit.lanes, *constants))

    @wraps(emit)
    def address(unit: VectorUnit, *by_position: Any, **by_name: Any) -> int:
        return compiled(unit, *_flat(given.bind(*by_position, **by_name).args))

    return address


def instructions(emit: Callable[..., None]) -> Any:
    """Makes an intrinsic (lanes, numbers ..., values ...) that inlines the emitter's instructions into a Numba
    function."""
    values, numbers = _parameters(emit)
    fixed = ["lanes", *_flat_names(numbers)]

    def typed(typingctx: Any, *kinds: Any) -> Any:
        constants = literal_values(*kinds[: len(fixed)])
        if constants is None:
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit(builder, constants[0], *args[len(fixed) :], **_rebuilt(numbers, iter(constants[1:])))
            return context.get_dummy_value()

        return types.void(*kinds[: len(fixed)], *[types.int64] * len(values)), codegen

    wraps(emit)(typed)
    names = ["typingctx", *fixed, *values]
    typed.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    return intrinsic(prefer_literal=True)(typed)


def literal_values(*kinds: Any) -> tuple[int, ...] | None:
    """The numbers of integer literal types; None asks Numba to call again with literals."""
    if not all(isinstance(kind, types.IntegerLiteral) for kind in kinds):
        return None
    return tuple(kind.literal_value for kind in kinds)


def _caller(emit: Any, code: Any, values: list[str], constants: list[str]) -> Callable[..., Any]:
    """A function of the numbers that makes the Numba function of the values.

    It is compiled from text, because its arguments need names. The numbers are closure variables, which Numba makes
    part of the cache key.
    """
    name = emit.__name__
    text = f"def make(lanes, {', '.join(constants)}):\n def {name}({', '.join(values)}):\n"
    text += f"  code({', '.join(['lanes', *constants, *values])})\n return {name}\n"
    above = "\n" * (emit.__code__.co_firstlineno - 2)
    namespace = {"code": code, "__name__": emit.__module__}
    exec(compile(above + text, emit.__code__.co_filename, "exec"), namespace)
    return namespace["make"]


def _parameters(emit: Callable[..., None]) -> tuple[list[str], dict[str, Any]]:
    """The names of an emitter's values; its numbers by name, each with its dataclass or None."""
    hints = get_type_hints(emit)
    parameters = list(inspect.signature(emit).parameters.values())[2:]
    values = [p.name for p in parameters if p.kind is not Parameter.KEYWORD_ONLY]
    numbers = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    return values, {name: hints[name] if is_dataclass(hints.get(name)) else None for name in numbers}


def _flat_names(numbers: dict[str, Any]) -> Iterable[str]:
    for name, kind in numbers.items():
        yield from [name] if kind is None else [f"{name}_{field.name}" for field in fields(kind)]


def _flat(given: Iterable[Any]) -> Iterable[int]:
    for value in given:
        yield from astuple(value) if is_dataclass(value) and not isinstance(value, type) else [int(value)]


def _rebuilt(numbers: dict[str, Any], constants: Iterable[int]) -> dict[str, Any]:
    """The emitter's keyword arguments, made from the numbers in order."""
    given = iter(constants)
    return {
        name: next(given) if kind is None else kind(*(next(given) for _ in fields(kind)))
        for name, kind in numbers.items()
    }
