"""Our own worker threads: one static partition of a range over the workers and the caller.

    parallel(fn, n, *args)   calls fn(i0, i1, thread, *args) for the parts of range(n)

A region costs about 15 µs. The partition depends on n and the number of threads alone, so what a thread computes is the
same in every run; when the workers are taken (a nested call, a second Python thread) the same parts run one after the other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from threadpoolctl import ThreadpoolController

from sslnet.errors import UsageError
from sslnet.kernels.denormals import flush_denormals, restore_denormals

VARIABLE = "SSLNET_NUM_THREADS"


def num_threads() -> int:
    """Threads that parallel uses: set_num_threads, else SSLNET_NUM_THREADS, else the physical cores of this process."""
    global _count
    if _count is None:
        _count = _from_environment() or physical_cores()
    return _count


def set_num_threads(count: int | None) -> None:
    """Threads that parallel uses from now on, the caller included; None: back to the default."""
    global _count
    if count is not None and count < 1:
        raise UsageError(f"the number of threads must be at least 1, not {count}")
    _count = count


def physical_cores() -> int:
    """Physical cores this process may run on: CPUs of its affinity mask, siblings of one core counted once."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
    return len({_siblings(cpu) for cpu in cpus}) or 1


def parallel(fn: Callable[..., object], n: int, *args: Any, most: int | None = None) -> None:
    """Calls fn(i0, i1, thread, *args) over a static partition of range(n), on the workers and the calling thread.

    fn       a Numba function that releases the GIL, or any callable; thread counts the parts from 0
    n        at most n parts; nothing is called for n <= 0
    most     at most that many parts, where waking more threads would cost more than it saves
    raises   what the first part that failed raised, after all parts have ended

    Denormals are flushed in every thread while fn runs. BLAS is limited to one thread from the first call on, for fn
    may call it.
    """
    if n <= 0:
        return
    parts = min(num_threads(), n, most or n)
    pool = _current_pool()
    token = object()
    setting = flush_denormals()
    # The dictionary is the lock: its owner is known even when an interrupt falls between taking it and the next line.
    try:
        if parts > 1 and pool.owner.setdefault("call", token) is token:
            pool.run(fn, n, parts, args)
        else:
            for part in range(parts):
                fn(n * part // parts, n * (part + 1) // parts, part, *args)
    finally:
        if pool.owner.get("call") is token:
            del pool.owner["call"]
        restore_denormals(setting)


def limit_blas(count: int) -> None:
    """Limits the BLAS libraries loaded now to count threads each, once: a repeated call with the same count does nothing."""
    global _blas_limit
    if _blas_limit is None or _blas_limit[0] != count:
        _blas_limit = (count, ThreadpoolController().limit(limits=count, user_api="blas"))


class _Pool:
    """The workers of one process. ``owner`` holds the token of the call that has them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.owner: dict[str, object] = {}
        self.workers: list[_Worker] = []

    def run(self, fn: Callable[..., object], n: int, parts: int, args: tuple[Any, ...]) -> None:
        while len(self.workers) < parts - 1:
            self.workers.append(_Worker(len(self.workers) + 1))
        # All of this belongs to this call alone: an interrupted call leaves nothing behind that the next could take for its own.
        claims = [[(n * part // parts, n * (part + 1) // parts, part)] for part in range(1, parts)]
        failures: dict[int, BaseException] = {}
        reports: list[tuple[int, BaseException | None]] = []
        ended: SimpleQueue[None] = SimpleQueue()
        expected = parts - 1
        try:
            for worker, claim in zip(self.workers, claims, strict=False):
                worker.tasks.put((fn, claim, args, reports, ended))
            fn(0, n // parts, 0, *args)
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
    """Runs the parts put into ``tasks``, for ever, with denormals flushed."""

    def __init__(self, number: int) -> None:
        super().__init__(name=f"sslnet-{number}", daemon=True)
        self.tasks: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        flush_denormals()
        while True:
            fn, claim, args, reports, ended = self.tasks.get()
            try:
                bounds = claim.pop()
            except IndexError:
                continue
            failure: BaseException | None = None
            try:
                fn(*bounds, *args)
            except BaseException as error:
                failure = error
            # Dropped before the report, so that a waiting worker keeps no array of the last call alive.
            del fn, args
            reports.append((bounds[2], failure))
            ended.put(None)
            del reports, ended, failure


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


def _siblings(cpu: int) -> str:
    """The CPUs that share a core with cpu, as the kernel lists them; the CPU's own number where it does not say."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


_count: int | None = None
_pool: _Pool | None = None
_blas_limit: tuple[int, object] | None = None
