"""The machine's peak rate: multiply-adds of a convolution's tile on data that lie in the first-level cache."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
from numba import njit

from sslnet.kernels.conv.microkernels import filter_tile
from sslnet.kernels.conv.packing import address
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.kernels.runtime.threads import num_threads, parallel
from sslnet.kernels.simd.vector import call_tile, vector_unit

_TAPS, _REPEATS, _ROUNDS = 64, 5_000, 20


def peak_flops() -> float:
    """Floating-point operations a second of all threads together, a multiply-add counted as two: the best of some runs."""
    return _peak(num_threads())


@cache
def _peak(threads: int) -> float:
    unit = vector_unit()
    pixels = (unit.registers - 1) // 2 - 1
    tile = filter_tile(unit, 2, 1, pixels, 1)
    weights, offsets = aligned_zeros(_TAPS * 2 * unit.lanes), np.zeros(_TAPS, np.int64)
    source, sums = aligned_zeros(pixels), aligned_zeros(2048 * threads)

    @njit(nogil=True)
    def run(i0: int, i1: int, thread: int, sums: int, weights: int, offsets: int, source: int) -> None:
        for _ in range(_REPEATS):
            # Numba itself gives the first argument, its typing context.
            call_tile(tile, (weights, offsets, _TAPS, source, 0, sums + thread * 8192, weights))  # type: ignore[call-arg]

    best = 0.0
    clock = time.thread_time if threads == 1 else time.perf_counter
    flops = 2 * _TAPS * pixels * 2 * unit.lanes * _REPEATS * threads
    for _ in range(_ROUNDS):
        start = clock()
        parallel(run, threads, *map(address, (sums, weights, offsets, source)))
        best = max(best, flops / (clock() - start))
    return best
