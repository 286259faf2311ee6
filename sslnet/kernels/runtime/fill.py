"""Setting large arrays to zero on several threads."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.jit import kernel
from sslnet.kernels.runtime.threads import parallel

LARGE = 1 << 20
"""Number of elements from which on several threads are used, because one core does not saturate the memory."""


def clear(array: np.ndarray) -> None:
    """Sets an array of any shape to 0; an array that is not C-contiguous is set on this thread only.  [overwrites
    array]"""
    if array.flags.c_contiguous:
        parallel(_clear, array.size, array.reshape(-1), most=None if array.size >= LARGE else 1)
    else:
        array[...] = 0


@kernel
def _clear(i0, i1, part, values):
    values[i0:i1] = 0
