"""Adds one long array over all ranks: the gradients of a net, range by range, as the backward pass completes them.

    LocalSum    one process: nothing to add
    WindowSum   one machine: the array is a row of shared memory; each rank adds its share of all rows
    NetworkSum  several machines: within each machine as WindowSum; between them recursive halving, then doubling, with
                the nearest rank first; a range at a time, in a thread, while the backward pass goes on

A power of two of ranks adds by the tree of ``sslnet.kernels.optim.tree_sum``, whichever way: the bits are the same. With another
number, or unequal numbers of ranks a machine, MPI's own all-reduce adds between the machines.

Between machines the thread polls, and so moves the data: MPI makes progress only while it is called.

Ref: Rabenseifner 2004, "Optimization of Collective Reduction Operations" (halving and doubling)
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from sslnet.kernels.optim.tree_sum import add_to_alone, sum_columns
from sslnet.kernels.runtime.denormals import flush_denormals
from sslnet.kernels.runtime.memory import aligned_empty, aligned_zeros
from sslnet.ranks.group import Group, MpiGroup
from sslnet.ranks.window import SharedWindow

LINE = 16
"""Shares begin at multiples of this many elements, a cache line of float32."""


class GradientSum(ABC):
    """Sums of an array over all ranks.

    array    (count) this rank's values, then the sums
    waited   seconds that ``finish`` has waited for other ranks or the network, so far
    sent     bytes that this rank has sent to other machines, so far
    """

    array: np.ndarray
    waited = 0.0
    sent = 0

    def start(self, first: int, last: int) -> None:  # noqa: B027 - most wait for the whole array
        """Says that the range is complete on this rank, and will not change before ``finish``."""

    @abstractmethod
    def finish(self) -> None:
        """Waits for the sums of all ranges; all ranks call it."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Gives up shared memory and threads; the array is gone then. All ranks call it."""


def gradient_sum(group: Group, count: int, dtype: DTypeLike, *, overlap: bool) -> GradientSum:
    """The way to add arrays over the ranks of a group.

    count    number of elements
    overlap  whether ranges are complete at different times, so that a thread can add some before others
    """
    if not isinstance(group, MpiGroup) or group.size == 1:
        return LocalSum(count, dtype)
    if group.nodes == 1:
        return WindowSum(group, count, dtype)
    return NetworkSum(group, count, dtype, overlap=overlap and group.threads)


class LocalSum(GradientSum):
    """The sum over one process."""

    def __init__(self, count: int, dtype: DTypeLike) -> None:
        self.array = aligned_zeros(count, dtype)

    def finish(self) -> None:
        pass


class WindowSum(GradientSum):
    """The sum over the ranks of one machine, in shared memory."""

    def __init__(self, group: MpiGroup, count: int, dtype: DTypeLike) -> None:
        self.window = SharedWindow(group, count, dtype)
        self.array = self.window.rows[self.window.rank, :count]

    def finish(self) -> None:
        began = time.perf_counter()
        self.window.barrier()
        self.waited += time.perf_counter() - began
        add_share(self.window, 0, self.array.size)
        began = time.perf_counter()
        self.window.barrier()
        self.waited += time.perf_counter() - began

    def close(self) -> None:
        self.array = aligned_zeros(0)
        self.window.close()


def add_share(window: SharedWindow, first: int, last: int, *, alone: bool = False) -> tuple[int, int]:
    """Adds this rank's share of a range over the rows of the window, between two barriers; returns the share.

    alone   on the calling thread only
    """
    a, b = share_of(window.rank, window.size, first, last)
    if a < b:
        sum_columns(window.rows, a, b, alone=alone)
    return a, b


def share_of(rank: int, size: int, first: int, last: int) -> tuple[int, int]:
    """The share of a rank of a range, at multiples of LINE elements from its beginning."""
    lines = -(-(last - first) // LINE)
    a, b = (first + LINE * (lines * k // size) for k in (rank, rank + 1))
    return min(a, last), min(b, last)


class NetworkSum(GradientSum):
    """The sum over ranks of several machines.

    overlap   add in a thread, from ``start`` on
    """

    def __init__(self, group: MpiGroup, count: int, dtype: DTypeLike, *, overlap: bool) -> None:
        self.group = group
        places = group.ranks_on_nodes
        each = group.size // group.nodes
        even = group.size % group.nodes == 0 and places == [rank // each for rank in range(group.size)]
        self.window = SharedWindow(group, count, dtype) if even and each > 1 else None
        own = None if self.window is None else self.window.rows[self.window.rank, :count]
        self.array = aligned_zeros(count, dtype) if own is None else own
        self.peers = group.subgroup(self.window.rank) if self.window is not None else group.subgroup(0)
        self._other = aligned_empty(0, dtype)
        self._ranges: list[tuple[int, int]] = []
        self._thread = _Adder(self._add) if overlap else None

    def start(self, first: int, last: int) -> None:
        self._ranges.append((first, last))
        if self._thread is not None:
            self._thread.ranges.put((first, last))

    def finish(self) -> None:
        began = time.perf_counter()
        for each in self._ranges:
            if self._thread is None:
                self._add(*each)
            else:
                error = self._thread.done.get()
                if error is not None:
                    raise error
        self._ranges.clear()
        self.waited += time.perf_counter() - began

    def close(self) -> None:
        if self._thread is not None:
            self._thread.ranges.put(None)
            self._thread.join()
            self._thread = None
        self.array = aligned_zeros(0)
        if self.window is not None:
            self.window.close()

    def _add(self, first: int, last: int) -> None:
        """Adds a range over all ranks."""
        if self.window is None:
            self._add_over_machines(first, last)
            return
        self.window.barrier()
        a, b = add_share(self.window, first, last, alone=True)
        if a < b:
            self._add_over_machines(a, b)
            for row in range(self.window.size):
                if row != self.window.rank:
                    self.window.rows[row, a:b] = self.array[a:b]
        self.window.barrier()

    def _add_over_machines(self, first: int, last: int) -> None:
        peers, array = self.peers, self.array
        if peers.size & (peers.size - 1):
            self.sent += 2 * array[first:last].nbytes * (peers.size - 1) // peers.size
            peers.wait([peers.comm.Iallreduce(peers.mpi.IN_PLACE, array[first:last])])
            return
        if self._other.size < last - first:
            self._other = aligned_empty(last - first, array.dtype)
        a, b, step, trail = first, last, 1, []
        while step < peers.size:
            peer, half = peers.rank ^ step, share_of(1, 2, a, b)[0]
            keep, give = ((half, b), (a, half)) if peers.rank & step else ((a, half), (half, b))
            theirs = self._other[: keep[1] - keep[0]]
            self._swap(peer, array[give[0] : give[1]], theirs)
            add_to_alone(theirs, array[keep[0] : keep[1]])
            trail.append((peer, keep, give))
            (a, b), step = keep, 2 * step
        for peer, keep, give in reversed(trail):
            self._swap(peer, array[keep[0] : keep[1]], array[give[0] : give[1]])

    def _swap(self, peer: int, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Sends an array to a rank, and receives one from it.  [overwrites theirs]"""
        comm: Any = self.peers.comm
        self.sent += ours.nbytes
        self.peers.wait([comm.Irecv(theirs, peer), comm.Isend(ours, peer)])


class _Adder(threading.Thread):
    """Adds the ranges put into ``ranges``, in their order, and puts None, or an error, into ``done`` for each."""

    def __init__(self, add_range: Any) -> None:
        super().__init__(name="sslnet-ranks", daemon=True)
        self.ranges: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self.done: SimpleQueue[Exception | None] = SimpleQueue()
        self._add = add_range
        self.start()

    def run(self) -> None:
        with contextlib.suppress(Exception):
            flush_denormals()
        while (each := self.ranges.get()) is not None:
            try:
                self._add(*each)
            except Exception as error:
                self.done.put(error)
            else:
                self.done.put(None)
