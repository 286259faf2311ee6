"""SharedWindow: memory that the ranks of one machine share, and a barrier between them.

The barrier counts in the shared memory: a rank raises its own number, then waits until those of all others have
reached it. That takes some microseconds where MPI's own takes more, and MPI need not be called.

Ref: MPI-3.1, 11.2.3 (MPI_Win_allocate_shared)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from sslnet.kernels.runtime.memory import ALIGNMENT
from sslnet.ranks.group import MpiGroup, poll

PAGE = 4096


class SharedWindow:
    """An array (ranks of the machine, at least count), a row for each rank, that all read and write; and a barrier.

    group   the processes;  rank, size: number of this one among those of its machine, and of these
    rows    the array; zeros at first
    """

    def __init__(self, group: MpiGroup, count: int, dtype: DTypeLike) -> None:
        node = group.node
        self.rank, self.size = int(node.rank), int(node.size)
        dtype = np.dtype(dtype)
        stride = -(-max(1, count) * dtype.itemsize // PAGE) * PAGE
        flags = self.size * ALIGNMENT
        whole = (self.size * stride + flags + PAGE) if self.rank == 0 else 0
        self._window: Any = group.mpi.Win.Allocate_shared(whole, 1, comm=node)
        self._window.Lock_all()
        buffer, _ = self._window.Shared_query(0)
        memory = np.frombuffer(buffer, np.uint8)
        start = -memory.ctypes.data % PAGE
        self.rows = memory[start : start + self.size * stride].view(dtype).reshape(self.size, -1)
        self.rows[self.rank] = 0  # a row lies in the memory nearest to the rank that writes it first
        after = start + self.size * stride
        self._flags = memory[after : after + flags].view(np.int64)[:: ALIGNMENT // 8]
        if self.rank == 0:
            self._flags[:] = 0
        self._epoch = 0
        self._seconds = group.seconds
        self._window.Sync()
        group.barrier()

    def barrier(self) -> None:
        """Waits until all ranks of the machine have come here; what they wrote before can then be read."""
        self._epoch = epoch = self._epoch + 1
        self._window.Sync()
        self._flags[self.rank] = epoch
        poll(lambda: self._flags.min() >= epoch, self._seconds)
        self._window.Sync()

    def close(self) -> None:
        """Gives the memory back: all ranks of the machine call it, and MPI ends with an error where nobody does."""
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None
