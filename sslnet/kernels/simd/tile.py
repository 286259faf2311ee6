"""Micro-kernels out of emitters: functions that write a loop in LLVM's words, for one size of vectors and one tile.

    @tile
    def add(builder, lanes, x, y, count, *, vectors): ...

    builder   LLVM's builder, at the place where the instructions go
    lanes     float32 of a vector
    x, ...    values of the code that is written: int64, numbers or addresses in bytes
    vectors   numbers that are known when it is written, by keyword; a dataclass of numbers stands for all of them

``add(unit, vectors=4)`` is then the address of a compiled C function (x, y, count), to be called through ``call_tile``.
It is compiled once per machine, in about 30 ms: the numbers are part of the key under which Numba keeps it, beside the
processor's name and features. With ``@instructions`` the emitter becomes a function of Numba functions instead,
``add(lanes, 4, x, y, count)``, and its instructions stand where it is called.
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
    """The function (unit, numbers ...) -> address of the C function that the emitter writes; numbers also by position."""
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
    """The intrinsic (lanes, numbers ..., values ...) that puts what the emitter writes into a Numba function."""
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
    """The numbers of integer literal types; None asks Numba to come again with literals."""
    if not all(isinstance(kind, types.IntegerLiteral) for kind in kinds):
        return None
    return tuple(kind.literal_value for kind in kinds)


def _caller(emit: Any, code: Any, values: list[str], constants: list[str]) -> Callable[..., Any]:
    """A function of the numbers that makes the Numba function of the values: one whose arguments have names has to be
    written as text. The numbers are variables of its closure, which Numba makes part of the key."""
    name = emit.__name__
    text = f"def make(lanes, {', '.join(constants)}):\n def {name}({', '.join(values)}):\n"
    text += f"  code({', '.join(['lanes', *constants, *values])})\n return {name}\n"
    above = "\n" * (emit.__code__.co_firstlineno - 2)
    namespace = {"code": code, "__name__": emit.__module__}
    exec(compile(above + text, emit.__code__.co_filename, "exec"), namespace)
    return namespace["make"]


def _parameters(emit: Callable[..., None]) -> tuple[list[str], dict[str, Any]]:
    """Names of the values of an emitter; its numbers, with the dataclass of each, or None."""
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
    """The emitter's keywords out of the numbers in turn."""
    given = iter(constants)
    return {
        name: next(given) if kind is None else kind(*(next(given) for _ in fields(kind)))
        for name, kind in numbers.items()
    }
