"""The notice that kernels are compiled: given when they are, not when they are ready."""

from __future__ import annotations

from numba import njit

from sslnet.cli.warmup import NOTICE, compile_notice


def test_notice_is_given_once_when_kernels_are_compiled() -> None:
    @njit
    def add_one(x):
        return x + 1

    @njit
    def add_two(x):
        return x + 2

    said: list[str] = []
    compiled: list[tuple[int, str]] = []
    with compile_notice(said.append, lambda count, name: compiled.append((count, name))):
        assert add_one(1) == 2
        assert add_two(1) == 3
    assert said == [NOTICE]
    assert compiled == [(1, "add_one"), (2, "add_two")]


def test_notice_is_not_given_when_kernels_are_ready() -> None:
    @njit
    def add_three(x):
        return x + 3

    add_three(1)
    said: list[str] = []
    with compile_notice(said.append):
        assert add_three(1) == 4
    assert said == []
