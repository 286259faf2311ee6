"""Native calls of kernels: the same machine code as a call from Python, with the same arguments, so the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from sslnet.kernels.runtime import native
from sslnet.kernels.runtime.native import is_kernel, native_entry, run_once
from sslnet.kernels.runtime.recording import Recorder, appending


def test_numba_of_this_version_can_be_called_natively():
    assert native._works()


def test_a_version_of_numba_that_fails_is_not_used(monkeypatch):
    native.works.cache_clear()
    monkeypatch.setattr(native, "native_entry", lambda *_: 1 / 0)
    assert not native.works()
    native.works.cache_clear()


@njit
def put(out, at, value):
    out[at] = value


@pytest.mark.parametrize(
    "value",
    [3, -3, 2**62, True, 1.5, np.float32(0.1), np.int32(-5), np.uint8(250), np.int16(-7), float("inf"), -0.0],
    ids=repr,
)
def test_numbers_arrive_as_they_are(value):
    by_python, natively = np.zeros(2), np.zeros(2)
    put(by_python, 1, value)
    assert run_once(native_entry(put, (natively, 1, value))) == 0
    assert by_python.tobytes() == natively.tobytes()


def test_uint64_above_int64_arrives():
    by_python, natively = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
    put(by_python, 0, np.uint64(2**64 - 3))
    assert run_once(native_entry(put, (natively, 0, np.uint64(2**64 - 3)))) == 0
    assert natively[0] == by_python[0] == 2**64 - 3


@njit
def copy_through(x, y, pair, nothing):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] + pair[0][j] * pair[1]
    if nothing is None:
        y[0, 0] += 1


@pytest.mark.parametrize("order", ["C", "F", "A"])
def test_arrays_of_any_layout_and_tuples_arrive(order):
    whole = np.arange(48, dtype=np.float32).reshape(6, 8)
    x = {"C": whole, "F": np.asfortranarray(whole), "A": whole[::2, 1::3]}[order]
    results = [np.zeros(x.shape, np.float32) for _ in range(2)]
    factors = np.linspace(0, 1, x.shape[1])
    copy_through(x, results[0], (factors, 2.5), None)
    assert run_once(native_entry(copy_through, (x, results[1], (factors, 2.5), None))) == 0
    assert results[0].any() and results[0].tobytes() == results[1].tobytes()


@njit
def answer(x):
    return x


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="answer cannot be called natively"):
        native_entry(answer, (1,))
    with pytest.raises(TypeError, match="cannot be passed natively"):
        native_entry(put, (np.zeros(1, complex), 0, 1j))
    assert is_kernel(put) and not is_kernel(len)


class BothWays(Recorder):
    """Calls each kernel from Python and natively, on the same values, and compares what both leave."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()

    def append(self, fn, n, args, parts, work, *, align=1, numbered=True):
        from sslnet.kernels.runtime.recording import Scratch

        args = tuple(a.find() if isinstance(a, Scratch) else a for a in args)
        bounds = [(n * p // parts, n * (p + 1) // parts, p) for p in range(parts)]
        for whole in bounds:
            given = (*(whole if numbered else whole[:2]), *args)
            if not is_kernel(fn):
                fn(*given)
            else:
                self._compare(fn, given)

    def _compare(self, fn, given):
        arrays = [a for a in _flat(given) if isinstance(a, np.ndarray)]
        before = [a.copy() for a in arrays]
        entry = native_entry(fn, given)
        # An address may be that of an array which the kernel adds to: such a kernel runs once, natively.
        if any(isinstance(a, int) and a > 1 << 32 for a in given):
            assert run_once(entry) == 0
        else:
            fn(*given)
            expected = [a.copy() for a in arrays]
            for a, old in zip(arrays, before, strict=True):
                if a.flags.writeable:
                    a[...] = old
            assert run_once(entry) == 0
            for a, wanted in zip(arrays, expected, strict=True):
                assert a.tobytes() == wanted.tobytes(), fn
        self.kernels.add(f"{fn.py_func.__module__}.{fn.py_func.__name__}")


def _flat(values):
    return [one for v in values for one in (_flat(v) if isinstance(v, tuple) else [v])]


def test_every_kernel_of_every_layer_computes_the_same_both_ways():
    """Forward and backward of every case of every layer type, in both phases: layers' own kernels and those of steps."""
    from ...layers.test_lean import EACH
    from ...support.lean import build, results

    seen = BothWays()
    for case in (param.values[0] for param in EACH):
        wanted = results(build(case.text, phase=case.phase, values=case.values), passes=1)
        with appending(seen):
            found = results(build(case.text, phase=case.phase, values=case.values), passes=1)
        for mine, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert len(seen.kernels) > 60, sorted(seen.kernels)
