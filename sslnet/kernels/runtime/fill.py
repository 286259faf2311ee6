"""Zeros into memory that is too large for one thread to be done with it at once."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.runtime.threads import parallel

LARGE = 1 << 20
"""Elements from which on the memory, not a core, is what there is to wait for."""


def clear(array: np.ndarray) -> None:
    """array = 0, of any shape; one that does not lie in one piece on this thread alone.  [overwrites array]"""
    if array.flags.c_contiguous:
        parallel(_clear, array.size, array.reshape(-1), most=None if array.size >= LARGE else 1)
    else:
        array[...] = 0


@kernel
def _clear(i0, i1, part, values):
    values[i0:i1] = 0
