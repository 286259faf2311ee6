"""A tape: regions recorded once, as calls of native code, and run any number of times without Python between them.

    tape = Tape(workspace, threads)
    with appending(tape):            # recording.py: regions are appended instead of run
        step.forward()
    tape.finish()
    tape.run()

A region that is divided becomes a call for each part, and a barrier before and after it; others run in the caller's
thread. The parts are those of ``threads.parallel``, so a tape computes the same bits; regions that are too small for
several threads of ``parallel`` are divided more finely, because a barrier takes less than a microsecond. A tape that
takes long is cut into launches, between which Python handles signals.

Which number of threads is faster depends on what else the machine does: ``Pace`` compares them as the tape runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from sslnet.errors import UsageError
from sslnet.kernels.runtime import native, walk
from sslnet.kernels.runtime.atomics import clear_word
from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.kernels.runtime.pace import Pace
from sslnet.kernels.runtime.recording import CannotAppend, Recorder, Scratch
from sslnet.kernels.runtime.team import available, current_team
from sslnet.kernels.runtime.threads import quieten
from sslnet.kernels.runtime.workspace import Workspace

FASTEST = 1e10
"""Multiply-adds of a second in one thread, for an estimate of the time of a launch."""
LAUNCH = 0.05 * FASTEST
"""The most multiply-adds of a launch, so that an interrupt is noticed within about 50 ms."""

Bounds = tuple[int, int, int]


VARIABLE = "SSLNET_TAPE"


def taping() -> bool:
    """Whether nets run as tapes where they can: set_taping, else the variable SSLNET_TAPE, else True."""
    global _taping
    if _taping is None:
        text = os.environ.get(VARIABLE, "").strip()
        if text not in ("", "0", "1"):
            raise UsageError(f'{VARIABLE} must be 0 or 1, not "{text}"')
        _taping = text != "0"
    return _taping


def set_taping(on: bool | None) -> None:
    """Makes nets run as tapes (True) or step by step (False); None: the default. Both compute the same bits."""
    global _taping
    _taping = on


_taping: bool | None = None


def available_threads(threads: int) -> int:
    """The number of threads of a tape when ``parallel`` has so many: the same, or 1 where workers cannot wait."""
    return threads if available() else 1


class _Row(NamedTuple):
    """A region: its native code, where its scratch arguments stand, and its parts."""

    entry: native.NativeEntry
    head: tuple[int, ...]
    scratch: list[tuple[int, Scratch]]
    bounds: list[Bounds]
    work: float
    label: object


class Tape(Recorder):
    """The regions of some steps in order; see the module.

    workspace   scratch memory
    threads     the most threads that share the parts of a region
    """

    def __init__(self, workspace: Workspace, threads: int) -> None:
        self.workspace = workspace
        self.threads = available_threads(threads)
        self.label: object = None
        """What the regions appended next belong to; an error names it."""
        self._rows: list[_Row] = []
        self._alive: list[Any] = []
        self._launches: list[_Launch] = []
        self._words = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    # -- recording ---------------------------------------------------------------------------------------------------

    def append(
        self,
        fn: Callable[..., object],
        n: int,
        args: tuple[Any, ...],
        parts: int,
        work: float,
        *,
        align: int = 1,
        numbered: bool = True,
    ) -> None:
        if not native.is_kernel(fn):
            raise CannotAppend(f"{fn} is not compiled")
        head = (0, n, 0) if numbered else (0, n)
        try:
            entry = native.native_entry(fn, (*head, *(a.example() if isinstance(a, Scratch) else a for a in args)))
        except TypeError as error:
            raise CannotAppend(str(error)) from error
        scratch = [(entry.starts[len(head) + k], a) for k, a in enumerate(args) if isinstance(a, Scratch)]
        cuts = [n if p == parts else n * p // parts // align * align for p in range(parts + 1)]
        bounds = [(i0, i1, p) for p, (i0, i1) in enumerate(pairwise(cuts))]
        self._alive.append(args)
        self._rows.append(_Row(entry, head, scratch, bounds, work, self.label))

    def mark(self) -> tuple[int, int]:
        """The end of the tape, an argument for ``cut``."""
        return len(self._rows), len(self._alive)

    def cut(self, mark: tuple[int, int]) -> None:
        """Removes what has been appended since the mark."""
        del self._rows[mark[0] :], self._alive[mark[1] :]

    def reserve(self) -> None:
        """Makes the workspace large enough. Tapes that share it all reserve before the first one is finished."""
        if all(len(row.bounds) == 1 for row in self._rows):
            self.threads = 1
        for row in self._rows:
            for thread, _ in _shares(row.bounds, self.threads):
                for _, scratch in row.scratch:
                    self.workspace.need(thread, scratch.slot, scratch.nbytes)
                    self.workspace.need(0, scratch.slot, scratch.nbytes)

    def finish(self, borrowed: Sequence[tuple[int, int]] = ()) -> None:
        """Makes the tape ready to run, as long as the workspace keeps its version.

        borrowed   address ranges (first, end) of arrays that the tape must not keep alive
        """
        self.reserve()
        self._alive = [
            [a for a in _flat(args) if not (isinstance(a, np.ndarray) and _inside(a, borrowed))] for args in self._alive
        ]
        builder = _TapeBuilder(self.workspace, self.threads)
        for row in self._rows:
            builder.add(row)
        self._words, self._launches = builder.finish()

    def move(self, moves: Sequence[tuple[int, int, int]]) -> None:
        """Adds a distance to all addresses in a range: (first, end, distance) of arrays that are at other places now."""
        words = self._words
        # All are found first: an array may have moved to where another one was.
        found = [np.flatnonzero((words >= first) & (words < end)) for first, end, _ in moves]
        for places, (_, _, distance) in zip(found, moves, strict=True):
            words[places] += distance

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Runs all regions.

        raises KernelFailed for a kernel that raised an exception, after all others have run
        """
        for launch in self._launches:
            failed = launch.run()
            if failed is not None:
                raise KernelFailed(failed.label)

    @property
    def threads_now(self) -> int:
        """The number of threads that the next run uses, by the measurements so far."""
        return max((launch.threads_now for launch in self._launches), default=1)


class KernelFailed(Exception):
    """A kernel of a tape raised an exception; ``label`` is that of its region."""

    def __init__(self, label: object) -> None:
        super().__init__(f"a kernel failed: {label}")
        self.label = label


class _Launch:
    """A piece of a tape that runs in one call: its rows for one thread, and for several."""

    def __init__(
        self, alone: np.ndarray, alone_rows: Sequence[Any], shared: list[tuple[np.ndarray, list[_Row | None]]]
    ) -> None:
        self.alone, self.alone_rows, self.shared = alone, alone_rows, shared
        self._alone = alone.ctypes.data, len(alone)
        self.threads = len(shared)
        self.barriers = 0
        if shared:
            self.table = np.array([(rows.ctypes.data, len(rows)) for rows, _ in shared], np.int64)
            self.barriers = int((shared[0][0][:, 0] == walk.BARRIER).sum())
            self._table = self.table.ctypes.data
            self.pace = Pace()

    @property
    def threads_now(self) -> int:
        return self.threads if self.shared and self.pace.several else 1

    def run(self) -> Any:
        """Runs the rows; returns the region whose kernel failed, or None."""
        if not self.shared:
            failed = walk.run_alone(*self._alone)
            return self.alone_rows[failed - 1] if failed else None
        begin = perf_counter_ns()
        if self.pace.several:
            quieten()
            team = current_team(self.threads).address
            failed = walk.run_together(team, self._table, self.threads, self.barriers, *self._alone)
        else:
            failed = -walk.run_alone(*self._alone)
        self.pace.note(begin, perf_counter_ns())
        if not failed:
            return None
        if failed < 0:
            return self.alone_rows[-failed - 1]
        return self.shared[failed >> 32][1][(failed & 0xFFFFFFFF) - 1]


class _TapeBuilder:
    """Makes the launches from regions: rows (kind, trampoline, function, first word) for one thread and for several."""

    def __init__(self, workspace: Workspace, threads: int) -> None:
        self.workspace, self.threads = workspace, threads
        self.words: list[int] = []
        self.pieces: list[tuple[_Rows, list[_Rows]]] = []
        self._begin()

    def _begin(self) -> None:
        self.alone: _Rows = []
        self.shared: list[_Rows] = [[] for _ in range(self.threads)]
        self.work, self.divided, self.open = 0.0, False, False

    def add(self, row: _Row) -> None:
        """Adds a region: a call for each part, for one thread and for several."""
        if self.alone and self.work + row.work > LAUNCH:
            self._end()
        self.work += row.work
        shares = _shares(row.bounds, self.threads)
        if len(shares) > 1:
            self._barrier()
            self.divided = True
        for thread, bounds in shares:
            for one in bounds:
                calls = self._calls(row, one, thread)
                self.shared[thread] += calls
                self.alone += calls if not (thread and row.scratch) else self._calls(row, one, 0)
        self.open = True
        if len(shares) > 1:
            self._barrier()

    def _barrier(self) -> None:
        """All threads wait for each other, if any has done something since the last time."""
        if self.open:
            for rows in self.shared:
                rows.append(((walk.BARRIER, 0, 0, 0), None))
            self.open = False

    def _calls(self, row: _Row, bounds: Bounds, thread: int) -> _Rows:
        """The calls of a part: of the kernel, after those that clear its scratch memory."""
        calls: _Rows = []
        words = list(row.entry.words)
        words[: len(row.head)] = bounds[: len(row.head)]
        for place, scratch in row.scratch:
            address = self.workspace.address(thread, scratch.slot)
            words[place if scratch.as_address else place + 4] = address
            if scratch.zeroed:
                clear = native.native_entry(_clear, (address, scratch.nbytes))
                calls.append((self._call(clear, clear.words), row))
        calls.append((self._call(row.entry, words), row))
        return calls

    def _call(self, entry: native.NativeEntry, words: list[int]) -> tuple[int, int, int, int]:
        first = len(self.words)
        self.words += words
        return walk.CALL, entry.trampoline, entry.function, first

    def _end(self) -> None:
        if self.divided:
            self.open = True
            self._barrier()
        self.pieces.append((self.alone, self.shared if self.divided else []))
        self._begin()

    def finish(self) -> tuple[np.ndarray, list[_Launch]]:
        """The words of all calls, and the launches, whose rows contain their addresses."""
        self._end()
        words = np.array(self.words or [0], np.int64)
        start = words.ctypes.data
        launches = []
        for alone, shared in self.pieces:
            if alone:
                launches.append(_Launch(*_table(alone, start), [_table(rows, start) for rows in shared]))
        return words, launches


_Rows = list[tuple[tuple[int, int, int, int], "_Row | None"]]


def _table(rows: _Rows, start: int) -> tuple[np.ndarray, list[_Row | None]]:
    """The rows as the walk reads them, and the region of each."""
    table = np.array([row for row, _ in rows], np.int64).reshape(-1, walk.ROW_WORDS)
    table[:, 3] = start + 8 * table[:, 3]
    return table, [region for _, region in rows]


def _shares(bounds: Sequence[Bounds], threads: int) -> list[tuple[int, Sequence[Bounds]]]:
    """(thread, its parts): adjacent parts for each thread, the first ones for the caller."""
    count = min(threads, len(bounds))
    return [(t, bounds[len(bounds) * t // count : len(bounds) * (t + 1) // count]) for t in range(count)]


def _flat(args: Any) -> list[Any]:
    return [one for a in args for one in (_flat(a) if isinstance(a, tuple) else [a])]


def _inside(array: np.ndarray, ranges: Sequence[tuple[int, int]]) -> bool:
    address = array.__array_interface__["data"][0]
    return any(first <= address < end for first, end in ranges)


@exact_kernel
def _clear(address, nbytes):
    """Sets memory to zero; nbytes is a multiple of 4."""
    for k in range(nbytes // 4):
        clear_word(address + 4 * k)
