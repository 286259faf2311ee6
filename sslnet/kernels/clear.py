"""Zeros into memory that is too large for one thread to be done with it at once."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.jit import kernel, spread


def clear(array: np.ndarray) -> None:
    """array = 0, of any shape; one that does not lie in one piece on this thread alone.  [overwrites array]"""
    if array.flags.c_contiguous:
        spread(_clear, array.size, 1, array.reshape(-1))
    else:
        array[...] = 0


@kernel
def _clear(i0, i1, part, values):
    values[i0:i1] = 0
