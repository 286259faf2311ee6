"""Memory planner: places blobs with disjoint lifetimes in one shared arena, which the plans of a net use alternately."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.runtime.memory import ALIGNMENT, aligned_empty
from sslnet.kernels.runtime.workspace import Workspace
from sslnet.net.liveness import LiveRange


def place(live_ranges: Sequence[LiveRange]) -> int:
    """Assigns offsets such that overlapping lifetimes get disjoint memory; returns the total size in bytes.

    Places the largest first, each into the smallest gap that it fits into.

    Ref: Pisarchyk, Lee 2020, "Efficient memory management for deep neural net inference", algorithm 3 (greedy by size)
    """
    placed: list[LiveRange] = []
    for live_range in sorted(
        (live_range for live_range in live_ranges if live_range.inside is None),
        key=lambda live_range: -live_range.blob.nbytes,
    ):
        end, best, slack = 0, -1, -1
        for other in placed:
            if not other.overlaps(live_range):
                continue
            gap = other.offset - end - live_range.blob.nbytes
            if gap >= 0 and (best < 0 or gap < slack):
                best, slack = end, gap
            end = max(end, _aligned(other.end))
        live_range.offset = end if best < 0 else best
        placed.append(live_range)
        placed.sort(key=lambda live_range: live_range.offset)
    for live_range in live_ranges:
        live_range.offset = _offset(live_range)
    return max((_aligned(live_range.end) for live_range in live_ranges), default=0)


def _offset(live_range: LiveRange) -> int:
    return live_range.offset if live_range.inside is None else _offset(live_range.inside) + live_range.at


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class Arena:
    """Shared memory of the size of the largest plan that uses it; nets that share an arena never run at the same time."""

    def __init__(self) -> None:
        self.size = 0
        self.workspace = Workspace()
        """Scratch memory of the tapes of all these plans."""
        self.holder: Lease | None = None
        """The lease whose values are in the memory, or None."""
        self._memory: np.ndarray | None = None
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()

    def join(self, lease: Lease) -> None:
        self._leases.add(lease)
        if lease.size > self.size:
            self.size = lease.size

    def memory(self) -> np.ndarray:
        """The memory as an array of ``size`` bytes, allocated at first use."""
        if self._memory is None or self._memory.size < self.size:
            for lease in self._leases:
                lease.forget()  # otherwise the old memory could not be freed
            self._memory = None
            self._memory = aligned_empty(self.size, np.uint8)
        return self._memory

    def is_memory(self, memory: np.ndarray | None) -> bool:
        """Whether this is the memory as ``memory()`` would return it; None: no memory is needed."""
        return memory is None or (memory is self._memory and memory.size >= self.size)


class Lease:
    """The use of the arena by one plan. Its blobs are views of the arena from ``take`` to ``give_back``.

    live_ranges   lifetimes without offsets;  size: bytes in the arena
    """

    def __init__(self, arena: Arena, live_ranges: list[LiveRange]) -> None:
        self.arena = arena
        self.live_ranges = live_ranges
        self.size = place(live_ranges)
        self._arrays: list[np.ndarray] = []
        arena.join(self)

    @property
    def holds(self) -> bool:
        """Whether no other lease has used the memory since the last ``take``."""
        return self.arena.holder is self

    def take(self) -> None:
        """Makes the blobs views of the arena before a run; values of another plan become unreadable."""
        holder = self.arena.holder
        if holder is not self:
            if holder is not None:
                holder.forget()
            memory = self.arena.memory()
            self.arena.holder = self
            self._arrays = [
                memory[live_range.offset : live_range.end].view(live_range.blob.dtype).reshape(live_range.blob.shape)
                for live_range in self.live_ranges
            ]
        for live_range, array in zip(self.live_ranges, self._arrays):
            live_range.blob.lend(live_range.which, array)

    def give_back(self, step: int) -> None:
        """After a run that ended with ``step`` (see ``lifetimes``): keeps only values live in that step readable."""
        for live_range in self.live_ranges:
            if not live_range.first <= step <= live_range.last:
                live_range.blob.withdraw(live_range.which)

    def forget(self) -> None:
        """Ends the use of the memory: the blobs become unreadable."""
        for live_range in self.live_ranges:
            live_range.blob.withdraw(live_range.which)
        self._arrays = []
        if self.arena.holder is self:
            self.arena.holder = None

    def exempt(self, blob: Blob, which: str) -> None:
        """Excludes a blob's values from the shared memory; they get memory of their own."""
        for index, live_range in enumerate(self.live_ranges):
            if live_range.blob is blob and live_range.which == which:
                del self.live_ranges[index]
                del self._arrays[index : index + 1]
                return
