"""Our own worker threads: one static partition of a range over the workers and the caller.

    parallel(fn, n, *args)   calls fn(i0, i1, part, *args) for the parts of range(n)

Between two regions a worker looks out for the next one for SPIN seconds before it goes to sleep, if the last one came as
soon: to a worker that is awake a region costs about 10 µs, to one that sleeps 35 to 50. The partition depends on n and the number of threads alone, so what a part computes is the same
in every run; when the workers are taken (a nested call, a second Python thread) the same parts run one after the other.
With ``set_deterministic`` it depends on n alone: as many parts however many threads there are to run them, so that sums
over parts, taken in the order of the parts, are the same bits on every machine of one kind.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from sslnet.errors import UsageError
from sslnet.kernels.runtime.cores import usable_cores
from sslnet.kernels.runtime.denormals import denormal_setting, flush_denormals, flushed, restore_denormals
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.kernels.runtime.spin_wait import pauses_per_second, spin

VARIABLE = "SSLNET_NUM_THREADS"
DETERMINISTIC_VARIABLE = "SSLNET_DETERMINISTIC"

DETERMINISTIC_PARTS = 8
"""Parts of a range when results must not depend on the threads; so many threads at most have work then."""

SPIN = 200e-6
"""Seconds that a thread looks out for another one before it goes to sleep."""
LEAD = 10e-6
"""Seconds from when a worker sees its work until it asks for the interpreter's lock: its caller is to be in its own part by
then and to have given the lock back, or else the worker goes to sleep for it."""


def num_threads() -> int:
    """Threads that parallel uses: set_num_threads, else SSLNET_NUM_THREADS, else the cores that this process may use.

    What is summed part by part is not sized by this but by ``num_parts``.
    """
    global _count
    if _count is None:
        _count = _from_environment() or usable_cores()
    return _count


def set_num_threads(count: int | None) -> None:
    """Threads that parallel uses from now on, the caller included; None: back to the default."""
    global _count
    if count is not None and count < 1:
        raise UsageError(f"the number of threads must be at least 1, not {count}")
    _count = count


def deterministic() -> bool:
    """Whether results do not depend on the number of threads: set_deterministic, else SSLNET_DETERMINISTIC, else not."""
    global _deterministic
    if _deterministic is None:
        set_deterministic(_deterministic_by_environment())
    return bool(_deterministic)


def set_deterministic(on: bool | None) -> None:
    """From now on results do, or do not, stay the same when the number of threads changes; None: back to the default.

    Costs memory and a little time: sums over a batch are made of DETERMINISTIC_PARTS sums instead of one a thread.
    Buffers of ``num_parts`` parts that exist already keep their size, so this is to be called before anything computes.
    """
    global _deterministic
    if on:
        limit_blas(1)  # its own threads would share out products otherwise
    _deterministic = on


def num_parts() -> int:
    """Parts that parallel makes of a range at most: by these, not by the threads, what is summed part by part is sized."""
    return DETERMINISTIC_PARTS if deterministic() else num_threads()


def parallel(fn: Callable[..., object], n: int, *args: Any, most: int | None = None) -> None:
    """Calls fn(i0, i1, part, *args) over a static partition of range(n), on the workers and the calling thread.

    fn       a Numba function that releases the GIL, or any callable; part counts the parts from 0
    n        at most n parts; nothing is called for n <= 0
    most     at most that many parts, where waking more threads would cost more than it saves
    raises   what the first part that failed raised, after all parts have ended

    Denormals are flushed in every thread while fn runs. BLAS is limited to one thread from the first call on, for fn
    may call it.
    """
    if n <= 0:
        return
    parts = min(num_parts(), n, most or n)
    pool = _current_pool()
    if parts == 1:
        flushed(fn, 0, n, 0, *args)
        return
    bounds = [(n * part // parts, n * (part + 1) // parts, part) for part in range(parts)]
    threads = min(num_threads(), parts)
    token = object()
    setting = denormal_setting()
    # The dictionary is the lock: its owner is known even when an interrupt falls between taking it and the next line.
    try:
        flush_denormals()
        if threads > 1 and pool.owner.setdefault("call", token) is token:
            pool.run(fn, bounds, threads, args)
        else:
            for i0, i1, part in bounds:
                fn(i0, i1, part, *args)
    finally:
        try:
            _end(pool, token, setting)
        except KeyboardInterrupt:  # it may have come first
            _end(pool, token, setting)
            raise


def limit_blas(count: int) -> None:
    """Limits the BLAS libraries loaded now to count threads each, once: a repeated call with the same count does nothing."""
    global _blas_limit
    if _blas_limit is None or _blas_limit[0] != count:
        _blas_limit = (count, ThreadpoolController().limit(limits=count, user_api="blas"))


Bounds = tuple[int, int, int]
"""First and end of a part, and its number."""


def _end(pool: _Pool, token: object, setting: int) -> None:
    """Gives back what a call has taken; once more does no harm."""
    if pool.owner.get("call") is token:
        pool.owner.pop("call", None)
    restore_denormals(setting)


class _Pool:
    """The workers of one process. ``owner`` holds the token of the call that has them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.owner: dict[str, object] = {}
        self.workers: list[_Worker] = []
        self.cores = usable_cores()
        self.regions = 0

    def run(self, fn: Callable[..., object], bounds: list[Bounds], threads: int, args: tuple[Any, ...]) -> None:
        """Parts next to each other go to one thread, the first ones to the caller."""
        while len(self.workers) < threads - 1:
            self.workers.append(_Worker(len(self.workers) + 1))
        shares = [bounds[len(bounds) * k // threads : len(bounds) * (k + 1) // threads] for k in range(threads)]
        # All of this belongs to this call alone: an interrupted call leaves nothing behind that the next could take for its own.
        claims = [[share] for share in shares[1:]]
        failures: dict[int, BaseException] = {}
        reports: list[tuple[int, BaseException | None]] = []
        ended: SimpleQueue[None] = SimpleQueue()
        expected = threads - 1
        # Who looks out where there are more threads than cores keeps others from their work.
        turns = _turns(SPIN) if threads <= self.cores else 0
        self.regions = region = self.regions + 1
        try:
            for worker, claim in zip(self.workers, claims, strict=False):
                worker.tasks.put((fn, claim, args, reports, ended, region, turns))
                worker.words[0] = region
            for i0, i1, part in shares[0]:
                fn(i0, i1, part, *args)
            for worker in self.workers[: threads - 1]:
                worker.look_out(region, turns)
        except BaseException as error:
            failures[0] = error
            expected -= sum(_cancel(claim) for claim in claims)
        interrupt = _wait(reports, ended, expected)
        failures |= {part: failure for part, failure in reports if failure is not None}
        if failures:
            raise failures[min(failures)]
        if interrupt is not None:
            raise interrupt


class _Worker(threading.Thread):
    """Runs the parts put into ``tasks``, for ever, with denormals flushed.

    words   the last region that has work for this worker, and the last one that it has ended, a cache line apart. They end
            the waiting sooner and nothing else: what there is to do, and what was done, stands in the queues.
    """

    def __init__(self, number: int) -> None:
        super().__init__(name=f"sslnet-{number}", daemon=True)
        self.tasks: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.words = aligned_zeros(16, np.int64)
        self.given = self.words.ctypes.data
        self.done = self.given + 64
        self.start()

    def look_out(self, region: int, turns: int) -> None:
        """Waits until the worker has ended its part of the region, or for so many turns."""
        spin(0, 0, self.done, region, turns, 0)

    def run(self) -> None:
        flush_denormals()
        region = turns = 0
        soon = False
        while True:
            begin = perf_counter()
            # The end is told with the interpreter's lock given back, so that the caller finds it free.
            spin(self.done, region, self.given, region + 1, turns if soon else 0, _turns(LEAD))
            fn, claim, args, reports, ended, region, turns = self.tasks.get()
            soon = perf_counter() - begin < SPIN
            try:
                share = claim.pop()
            except IndexError:
                continue
            failure: BaseException | None = None
            try:
                for i0, i1, part in share:
                    fn(i0, i1, part, *args)
            except BaseException as error:
                failure = error
            # Dropped before the report, so that a waiting worker keeps no array of the last call alive.
            del fn, args
            reports.append((share[0][2], failure))
            ended.put(None)
            del reports, ended, failure


def _turns(seconds: float) -> int:
    """Turns of ``spin`` in so many seconds."""
    return int(seconds * pauses_per_second())


def _cancel(claim: list[Any]) -> bool:
    """True if the part had not begun; it will not any more."""
    try:
        claim.pop()
    except IndexError:
        return False
    return True


def _wait(reports: list[Any], ended: SimpleQueue[None], expected: int) -> KeyboardInterrupt | None:
    """Waits for all parts that have begun, through any number of interrupts: they write into the caller's arrays.

    The reports are counted, not the tokens: an interrupt can swallow a token that was just taken.
    """
    interrupt = None
    while len(reports) < expected:
        try:
            ended.get()
        except KeyboardInterrupt as error:
            interrupt = error
    return interrupt


def _current_pool() -> _Pool:
    """The pool of this process; after a fork a new one, for threads do not survive it."""
    global _pool
    if _pool is None or _pool.pid != os.getpid():
        limit_blas(1)
        _pool = _Pool()
    return _pool


def _from_environment() -> int | None:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f'{VARIABLE} must be a whole number of at least 1, not "{text}"')
    return int(text)


def _deterministic_by_environment() -> bool:
    text = os.environ.get(DETERMINISTIC_VARIABLE, "").strip()
    if text not in ("", "0", "1"):
        raise UsageError(f'{DETERMINISTIC_VARIABLE} must be 0 or 1, not "{text}"')
    return text == "1"


_count: int | None = None
_deterministic: bool | None = None
_pool: _Pool | None = None
_blas_limit: tuple[int, object] | None = None
