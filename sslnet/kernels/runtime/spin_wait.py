"""Spin-waiting for another thread, because the wake-up of a sleeping thread takes longer than a short parallel
region."""

from __future__ import annotations

from functools import cache
from time import perf_counter

import numpy as np
from numba import njit

from sslnet.kernels.runtime.atomics import load, pause, store
from sslnet.kernels.runtime.compiler import COMMON
from sslnet.kernels.runtime.memory import aligned_zeros


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


@njit("boolean(int64, int64, int64, int64, int64, int64)", **COMMON)
def spin(told, value, watched, wanted, most, lead):
    """Writes ``value`` to ``told`` (0: nowhere), then waits until the value at ``watched`` is at least ``wanted``.

    told, watched   addresses of int64
    most            iterations of the loop until it gives up; returns False if it gave up, else True
    lead            further iterations after the value was seen
    """
    if told != 0:
        store(told, value)
    for _ in range(most):
        if load(watched) >= wanted:
            for _ in range(lead):
                pause()
            return True
        pause()
    return False
