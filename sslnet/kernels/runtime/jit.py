"""Compilation of the kernels of layers, and their call on all threads.

Two rules keep a loop vectorised: slice arrays before the inner loop and index from 0 (an index that might be negative
is ten times slower), and pass the array of an in-place operation once, not twice (aliasing arrays fail the compiler's
overlap test at run time).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sslnet.kernels.runtime.compiler import kernel
from sslnet.kernels.runtime.denormals import flushed
from sslnet.kernels.runtime.threads import parallel

__all__ = ["SMALL", "kernel", "spread"]

SMALL = 1 << 17
"""Elements of work up to which one thread is faster than several."""


def spread(fn: Callable[..., object], n: int, cost: int, *args: Any) -> None:
    """Calls fn(i0, i1, part, *args) over range(n), n items of ``cost`` elements, on all threads; on this one if
    SMALL."""
    if n * cost > SMALL:
        parallel(fn, n, *args)
        return
    flushed(fn, 0, n, 0, *args)
