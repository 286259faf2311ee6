"""The scratch memory of tapes."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.memory import aligned_empty


class Workspace:
    """The scratch memory of tapes that never run at the same time: for each of their threads a buffer for each slot.

    version   another number whenever a buffer has moved; tapes made before are then no longer valid
    """

    def __init__(self) -> None:
        self.version = 0
        self._buffers: dict[tuple[int, str], np.ndarray] = {}

    def need(self, thread: int, slot: str, nbytes: int) -> None:
        """Makes the buffer of a thread at least so large."""
        buffer = self._buffers.get((thread, slot))
        if buffer is None or buffer.size < nbytes:
            if buffer is not None:
                self.version += 1
            self._buffers[thread, slot] = aligned_empty(nbytes, np.uint8)

    def address(self, thread: int, slot: str) -> int:
        return int(self._buffers[thread, slot].ctypes.data)

    @property
    def nbytes(self) -> int:
        return sum(buffer.size for buffer in self._buffers.values())
