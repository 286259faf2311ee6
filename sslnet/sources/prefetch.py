"""Prefetcher: makes batches in a background thread before they are needed, and passes them on without a copy.

The thread refers to the reader and the buffers, never to the Prefetcher, so that it ends when the last reference to the
Prefetcher is deleted; it is a daemon thread, so that the program can exit. A forked child has no thread; its next ``get``
starts a new one.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from sslnet.kernels.runtime.memory import aligned_empty
from sslnet.ranks.place import BatchPlace

POLL = 0.5
"""Seconds between checks whether the thread is running; short waits also allow interrupts on all systems."""


Free: TypeAlias = "SimpleQueue[list[np.ndarray] | None]"
Ready: TypeAlias = "SimpleQueue[list[np.ndarray] | BaseException]"


class Reader(ABC):
    """Makes any batch on request. It must not refer to the layer, which could then not be freed.

    batch_size  number of records of a batch
    shapes      shapes of the arrays of a batch, whose first axis is batch_size
    records     total number of records; None if batches are drawn at random without end
    """

    batch_size: int
    shapes: list[tuple[int, ...]]
    records: int | None = None

    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The smallest and the largest number that each channel of the first array may hold, both (channels) float64; None
        where the records set no bound."""
        return None

    @abstractmethod
    def fill(self, position: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        """Writes the records from place ``position`` on to the arrays; ``batch`` selects the random numbers.
        [overwrites arrays]"""

    def fill_part(self, position: int, batch: int, arrays: Sequence[np.ndarray], part: int, parts: int) -> None:
        """Writes part ``part`` of the ``parts`` equal parts, of batch_size records each, of the whole batch number ``batch``
        that begins at place ``position``. By default, each part has random numbers of its own.  [overwrites arrays]"""
        self.fill(position + part * self.batch_size, batch * parts + part, arrays)


class Prefetcher:
    """The batches of a reader, in order.

    reader           makes the batches
    dtype            type of the arrays
    position, batch  place and number of the first whole batch
    depth            number of batches made in advance; 0: none, they are made on request in the caller's thread
    place            the part of each whole batch that is read; default: the whole
    turn             number of the first pass (``BatchPlace.turn``)

    Needs (depth + 1) times the memory of one batch.
    """

    def __init__(
        self,
        reader: Reader,
        dtype: DTypeLike,
        position: int,
        batch: int,
        depth: int,
        place: BatchPlace | None = None,
        turn: int = 0,
    ) -> None:
        self._fill = _Batches(reader, position, batch, replace(place or BatchPlace(), exchange=None))
        self._reader = reader
        self._dtype = np.dtype(dtype)
        self._turn = turn
        self._depth = depth
        self._given: list[np.ndarray] | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def get(self) -> list[np.ndarray]:
        """The arrays of the next batch. They are overwritten some batches later; copy values to keep them.

        raises the error of the reader; after that, or after an interrupt, the next call makes the same batch again
        """
        try:
            arrays = self._take() if self._depth else self._make()
        except BaseException:
            self.close()
            raise
        self._turn += 1
        return arrays

    def close(self) -> None:
        """Stops the thread and waits for its end."""
        if self._thread is not None and self._pid == os.getpid():
            self._finalizer()
            self._thread.join()
        self._thread = None
        self._given = None

    def _make(self) -> list[np.ndarray]:
        self._given = self._given or _buffers(self._reader, self._dtype)
        self._fill(self._turn, self._given)
        return self._given

    def _take(self) -> list[np.ndarray]:
        if self._thread is None or self._pid != os.getpid():
            self._start()
        elif self._given is not None:
            self._free.put(self._given)
        while True:
            try:
                result = self._ready.get(timeout=POLL)
                break
            except Empty:
                if not self._thread.is_alive() and self._ready.empty():  # type: ignore[union-attr]
                    self._start()
        if isinstance(result, BaseException):
            raise result
        self._given = result
        return result

    def _start(self) -> None:
        self.close()
        self._free: Free = SimpleQueue()
        self._ready: Ready = SimpleQueue()
        for _ in range(self._depth + 1):
            self._free.put([])
        stop = threading.Event()
        arguments = (self._reader, self._fill, self._dtype, self._turn, self._free, self._ready, stop)
        thread = threading.Thread(target=_work, args=arguments, name="sslnet-prefetch", daemon=True)
        try:
            thread.start()
            self._pid = os.getpid()
            self._finalizer = weakref.finalize(self, _stop, thread, self._free, stop, self._pid)
            self._thread = thread
        except BaseException:  # raised by a signal: no further request will come
            stop.set()
            self._free.put(None)
            raise


@dataclass(frozen=True)
class _Batches:
    """Makes the batch of each pass, from the place and number of the first whole batch."""

    reader: Reader
    position: int
    batch: int
    place: BatchPlace

    def __call__(self, turn: int, arrays: Sequence[np.ndarray]) -> None:
        done, part = self.place.turn(turn)
        parts = self.place.whole
        position, batch = self.position + done * parts * self.reader.batch_size, self.batch + done
        if parts == 1:
            self.reader.fill(position, batch, arrays)
        else:
            self.reader.fill_part(position, batch, arrays, part, parts)


def _work(
    reader: Reader,
    fill: _Batches,
    dtype: np.dtype,
    turn: int,
    free: Free,
    ready: Ready,
    stop: threading.Event,
) -> None:
    while True:
        arrays = free.get()
        if arrays is None or stop.is_set():
            return
        try:
            arrays = arrays or _buffers(reader, dtype)
            fill(turn, arrays)
        except BaseException as error:
            ready.put(error)
            return
        ready.put(arrays)
        del arrays
        turn += 1


def _stop(thread: threading.Thread, free: Free, stop: threading.Event, pid: int) -> None:
    if pid != os.getpid():
        return
    stop.set()
    free.put(None)
    # The garbage collector may call this in any thread, with any lock held: so wait for a limited time, and not in the thread itself.
    if thread is not threading.current_thread():
        thread.join(timeout=5)


def _buffers(reader: Reader, dtype: np.dtype) -> list[np.ndarray]:
    return [aligned_empty(shape, dtype) for shape in reader.shapes]
