"""Whether arrays are still what they were, bit for bit."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.compiler import exact_kernel


class SameBits:
    """Remembers float32 arrays by a copy: no change goes unseen, however it was made."""

    def __init__(self) -> None:
        self._copies: list[np.ndarray] | None = None

    def changed(self, *arrays: np.ndarray) -> bool:
        """Whether any C-contiguous array differs from the last call's, which are as many; True in the first call."""
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
    """The bits: NaN equals itself, and -0 does not equal 0."""
    return array.reshape(-1).view(np.int32)


@exact_kernel
def _same(a, b):
    """Piece by piece, for a difference is mostly found at once."""
    for start in range(0, a.size, 1024):
        one, other = a[start : start + 1024], b[start : start + 1024]
        different = 0
        for i in range(one.size):
            different |= one[i] ^ other[i]
        if different != 0:
            return False
    return True
