"""Arena: one piece of memory in which blobs lie whose lives do not overlap; the plans of a net use it in turns."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.runtime.memory import ALIGNMENT, aligned_empty
from sslnet.net.liveness import Life


def place(lives: Sequence[Life]) -> int:
    """Gives every life its offset, so that lives which overlap lie apart; returns the bytes that all of them take.

    The largest first, each into the smallest gap that holds it.

    Ref: Pisarchyk, Lee 2020, "Efficient memory management for deep neural net inference", algorithm 3 (greedy by size)
    """
    placed: list[Life] = []
    for life in sorted((life for life in lives if life.inside is None), key=lambda life: -life.blob.nbytes):
        end, best, slack = 0, -1, -1
        for other in placed:
            if not other.overlaps(life):
                continue
            gap = other.offset - end - life.blob.nbytes
            if gap >= 0 and (best < 0 or gap < slack):
                best, slack = end, gap
            end = max(end, _aligned(other.end))
        life.offset = end if best < 0 else best
        placed.append(life)
        placed.sort(key=lambda life: life.offset)
    for life in lives:
        life.offset = _offset(life)
    return max((_aligned(life.end) for life in lives), default=0)


def _offset(life: Life) -> int:
    return life.offset if life.inside is None else _offset(life.inside) + life.at


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class Arena:
    """The memory, as large as the largest of the plans that have joined it; nets that share one never run at once."""

    def __init__(self) -> None:
        self.size = 0
        self.holder: Lease | None = None
        """Whose values lie in it."""
        self._memory: np.ndarray | None = None
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()

    def join(self, lease: Lease) -> None:
        self._leases.add(lease)
        if lease.size > self.size:
            self.size = lease.size

    def memory(self) -> np.ndarray:
        """(size) bytes, allocated when first asked for."""
        if self._memory is None or self._memory.size < self.size:
            for lease in self._leases:
                lease.forget()  # or the old memory would live on beside the new
            self._memory = None
            self._memory = aligned_empty(self.size, np.uint8)
        return self._memory


class Lease:
    """The memory of one plan in the arena. Its blobs show their part of it from ``take`` to ``give_back``.

    lives   with no offsets yet;  size: bytes in the arena
    """

    def __init__(self, arena: Arena, lives: list[Life]) -> None:
        self.arena = arena
        self.lives = lives
        self.size = place(lives)
        self._arrays: list[np.ndarray] = []
        arena.join(self)

    @property
    def holds(self) -> bool:
        """Whether no other has used the memory since."""
        return self.arena.holder is self

    def take(self) -> None:
        """Lets the blobs show the arena before a run; values that another plan had there are overwritten."""
        holder = self.arena.holder
        if holder is not self:
            if holder is not None:
                holder.forget()
            memory = self.arena.memory()
            self.arena.holder = self
            self._arrays = [
                memory[life.offset : life.end].view(life.blob.dtype).reshape(life.blob.shape) for life in self.lives
            ]
        for life, array in zip(self.lives, self._arrays):
            life.blob.lend(life.which, array)

    def give_back(self, step: int) -> None:
        """After a run that ended with this step (see lifetimes): only what still matters there stays readable."""
        for life in self.lives:
            if not life.first <= step <= life.last:
                life.blob.withdraw(life.which)

    def forget(self) -> None:
        """Others use the memory from now on."""
        for life in self.lives:
            life.blob.withdraw(life.which)
        self._arrays = []
        if self.arena.holder is self:
            self.arena.holder = None

    def exempt(self, blob: Blob, which: str) -> None:
        """Leaves these values out: they get memory of their own, and keep it."""
        for index, life in enumerate(self.lives):
            if life.blob is blob and life.which == which:
                del self.lives[index]
                del self._arrays[index : index + 1]
                return
