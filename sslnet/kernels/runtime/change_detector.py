"""Detection of changes of arrays, bit for bit."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.compiler import exact_kernel


class SameBits:
    """Keeps copies of float32 arrays and compares them, so that every change is detected."""

    def __init__(self) -> None:
        self._copies: list[np.ndarray] | None = None

    def changed(self, *arrays: np.ndarray) -> bool:
        """Whether any C-contiguous array differs from that of the last call, with as many arrays; True in the first
        call."""
        if self._copies is None:
            self._copies = [array.copy() for array in arrays]
            return True
        different = False
        for copy, array in zip(self._copies, arrays, strict=True):
            if not _same(_words(copy), _words(array)):
                copy[...] = array
                different = True
        return different

    def forget(self) -> None:
        self._copies = None


def _words(array: np.ndarray) -> np.ndarray:
    """The array's bits as integers: NaN equals itself, and -0 does not equal 0."""
    return array.reshape(-1).view(np.int32)


@exact_kernel
def _same(a, b):
    """Whether both are equal, compared piece by piece, because a difference is mostly found in the first one."""
    for start in range(0, a.size, 1024):
        one, other = a[start : start + 1024], b[start : start + 1024]
        different = 0
        for i in range(one.size):
            different |= one[i] ^ other[i]
        if different != 0:
            return False
    return True
