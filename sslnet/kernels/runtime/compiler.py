"""How Numba compiles the kernels: decorators, one for each set of options.

    kernel              the most freedom: sums in another order, fused and approximate arithmetic
    sums_kernel         sums in another order and fused multiply-adds, nothing else
    inlined_sums_kernel the same, put into the kernels that call it before they are compiled
    exact_kernel        as it is written

NaN and infinity keep their meaning in all of them, so that a diverged run shows.
"""

from __future__ import annotations

from typing import Any

from numba import njit

COMMON: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
SUMS = {"reassoc", "contract"}

kernel = njit(**COMMON, fastmath={*SUMS, "nsz", "arcp", "afn"})
sums_kernel = njit(**COMMON, fastmath=SUMS)
inlined_sums_kernel = njit(**COMMON, fastmath=SUMS, inline="always")
exact_kernel = njit(**COMMON)
