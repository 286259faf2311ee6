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
from sslnet.kernels.runtime.recording import recorder
from sslnet.kernels.runtime.threads import num_parts, parallel

__all__ = ["SMALL", "kernel", "spread"]

SMALL = 1 << 17
"""Elements of work up to which one thread is faster than several."""
SMALL_ON_TAPE = 1 << 12
"""The same on a tape, where a barrier takes less than a microsecond."""
MULTIPLY_ADDS = 10
"""The time of an element in multiply-adds, for an estimate: elements are read from memory."""
ALIGNED = 64
FEW = 256
"""Parts of a range of at least FEW items begin at a multiple of ALIGNED items: a loop over single values then rounds each of
them as in one piece, because only the last values of the range do not fill whole vectors."""


def spread(fn: Callable[..., object], n: int, cost: int, *args: Any) -> None:
    """Calls fn(i0, i1, part, *args) over range(n), n items of ``cost`` elements, on all threads; on this one if
    SMALL."""
    tape = recorder()
    if tape is not None:
        if n > 0:
            align = ALIGNED if n >= FEW and n * cost <= SMALL else 1
            parts = min(num_parts(), n) if n * cost > SMALL_ON_TAPE else 1
            tape.append(fn, n, args, parts, MULTIPLY_ADDS * n * cost, align=align)
        return
    if n * cost > SMALL:
        parallel(fn, n, *args)
        return
    flushed(fn, 0, n, 0, *args)
