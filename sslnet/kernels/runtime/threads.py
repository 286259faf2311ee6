"""The pool of worker threads: a static partition of a range over the workers and the calling thread.

    parallel(fn, n, *args)            calls fn(i0, i1, part, *args) for the parts of range(n)
    region(kernel, n, work, *args)    the same of a kernel, with scratch memory of each thread; both can be recorded (``tape``)

Between two parallel regions a worker spins for SPIN seconds before it sleeps, if the last region came as soon: the
start of a region takes about 10 µs for a spinning worker and 35 to 50 µs for a sleeping one.

The partition depends only on n and the number of threads, so a part computes the same in every run; when the workers
are busy (a nested call, a second Python thread) the same parts run one after the other. With ``set_deterministic`` the
partition depends only on n: the number of parts is the same for any number of threads, so that sums over parts, in the
order of the parts, have the same bits on every machine of one kind.
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
from sslnet.kernels.runtime.affinity import current_cpu, stay_off
from sslnet.kernels.runtime.cores import usable_cores
from sslnet.kernels.runtime.denormals import denormal_setting, flush_denormals, flushed, restore_denormals
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.kernels.runtime.recording import Scratch, recorder
from sslnet.kernels.runtime.spin_wait import pauses_per_second, spin

VARIABLE = "SSLNET_NUM_THREADS"
DETERMINISTIC_VARIABLE = "SSLNET_DETERMINISTIC"

DETERMINISTIC_PARTS = 8
"""The number of parts of a range when results must not depend on the threads; it limits the threads with work."""

SPIN = 200e-6
"""Seconds that a thread spins for another one before it sleeps."""
LEAD = 10e-6
"""Seconds that a worker waits after it sees its work before it requests the interpreter's lock. By then the caller
should run its own part and have released the lock; otherwise the worker sleeps on the lock."""


def num_threads() -> int:
    """The number of threads of parallel: set_num_threads, else SSLNET_NUM_THREADS, else the cores this process may use.

    Buffers of partial sums are sized by ``num_parts``, not by this number.
    """
    global _count
    if _count is None:
        _count = _from_environment() or usable_cores()
    return _count


def set_num_threads(count: int | None) -> None:
    """Sets the number of threads of parallel, the caller included; None: the default."""
    global _count
    if count is not None and count < 1:
        raise UsageError(f"the number of threads must be at least 1, not {count}")
    _count = count


def deterministic() -> bool:
    """Whether results are independent of the number of threads: set_deterministic, else SSLNET_DETERMINISTIC, else
    False."""
    global _deterministic
    if _deterministic is None:
        set_deterministic(_deterministic_by_environment())
    return bool(_deterministic)


def set_deterministic(on: bool | None) -> None:
    """Makes results independent of the number of threads (True) or not (False); None: the default.

    Costs memory and a little time: sums over a batch consist of DETERMINISTIC_PARTS sums instead of one a thread.
    Existing buffers of ``num_parts`` parts keep their size, so this must be called before any computation.
    """
    global _deterministic
    if on:
        limit_blas(1)  # otherwise BLAS would split products over its own threads
    _deterministic = on


def num_parts() -> int:
    """The most parts of a range in parallel, and so the number of partial sums that a caller allocates."""
    return DETERMINISTIC_PARTS if deterministic() else num_threads()


def parallel(fn: Callable[..., object], n: int, *args: Any, most: int | None = None) -> None:
    """Calls fn(i0, i1, part, *args) over a static partition of range(n), on the workers and the calling thread.

    fn       a Numba function that releases the GIL, or any callable; part is the number of the part, from 0
    n        size of the range, and the most parts; fn is not called for n <= 0
    most     the most parts, for work that more threads would not speed up
    raises   the error of the first part that failed, after all parts have ended

    Denormals are flushed in every thread while fn runs. BLAS is limited to one thread from the first call on, because
    fn may call it.
    """
    if n <= 0:
        return
    parts = min(num_parts(), n, most or n)
    tape = recorder()
    if tape is not None:
        tape.append(fn, n, args, parts, n)
        return
    pool = _current_pool()
    if parts == 1:
        flushed(fn, 0, n, 0, *args)
        return
    bounds = [(n * part // parts, n * (part + 1) // parts, part) for part in range(parts)]
    threads = min(num_threads(), parts)
    token = object()
    setting = denormal_setting()
    # The dictionary is the lock: its owner is known even if an interrupt comes between taking it and the next line.
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
        except KeyboardInterrupt:  # an interrupt may come before the first call
            _end(pool, token, setting)
            raise


def region(kernel: Callable[..., object], n: int, work: int, *args: Any, most: int | None = None) -> None:
    """Calls kernel(i0, i1, *args) over a static partition of range(n), as ``parallel``, or appends the calls to a tape.

    kernel   a Numba function without the argument ``part``
    work     multiply-adds of the whole range
    args     a Scratch becomes scratch memory of the thread that runs a part
    most     as in parallel
    """
    if n <= 0:
        return
    tape = recorder()
    if tape is not None:
        tape.append(kernel, n, args, min(num_parts(), n, most or n), work, numbered=False)
        return
    parallel(_run_part, n, kernel, args, most=most)


def _run_part(i0: int, i1: int, part: int, kernel: Callable[..., object], args: tuple[Any, ...]) -> None:
    kernel(i0, i1, *[one.find() if isinstance(one, Scratch) else one for one in args])


def quieten() -> None:
    """Ends the spinning of idle workers, before others use their cores."""
    pool = _pool
    if pool is not None and pool.quiet != pool.regions:
        pool.quiet = pool.regions
        for worker in pool.workers:
            worker.words[0] = pool.regions + 1


def limit_blas(count: int) -> None:
    """Limits every loaded BLAS library to ``count`` threads; a repeated call with the same count does nothing."""
    global _blas_limit
    if _blas_limit is None or _blas_limit[0] != count:
        _blas_limit = (count, ThreadpoolController().limit(limits=count, user_api="blas"))


Bounds = tuple[int, int, int]
"""(first, end, number) of a part."""


def _end(pool: _Pool, token: object, setting: int) -> None:
    """Releases the pool and restores the denormal setting after a call; a second call has no effect."""
    if pool.owner.get("call") is token:
        pool.owner.pop("call", None)
    restore_denormals(setting)


class _Pool:
    """The worker threads of one process. ``owner`` holds the token of the call that uses them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.owner: dict[str, object] = {}
        self.workers: list[_Worker] = []
        self.cores = usable_cores()
        self.regions = 0
        self.quiet = 0
        """The last region after which the spinning of workers was ended."""

    def run(self, fn: Callable[..., object], bounds: list[Bounds], threads: int, args: tuple[Any, ...]) -> None:
        """Runs the parts; each thread gets adjacent parts, the caller the first ones."""
        while len(self.workers) < threads - 1:
            # With more threads than cores every core is needed by all of them.
            avoided = current_cpu() if threads <= self.cores else None
            self.workers.append(_Worker(len(self.workers) + 1, avoided))
        shares = [bounds[len(bounds) * k // threads : len(bounds) * (k + 1) // threads] for k in range(threads)]
        # These objects belong to this call only, so that an interrupted call leaves nothing that the next one could
        # use.
        claims = [[share] for share in shares[1:]]
        failures: dict[int, BaseException] = {}
        reports: list[tuple[int, BaseException | None]] = []
        ended: SimpleQueue[None] = SimpleQueue()
        expected = threads - 1
        # With more threads than cores a spinning thread would keep others from their work.
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
    """A worker thread that runs the parts put into ``tasks``, in an endless loop, with denormals flushed.

    avoided the CPU of the caller, whose core the thread stays off (``affinity``); None: it may run anywhere
    words   the last region with work for this worker, and the last region that it has finished, a cache line apart.
            They only shorten the waiting: the work and its reports are in the queues.
    """

    def __init__(self, number: int, avoided: int | None) -> None:
        super().__init__(name=f"sslnet-{number}", daemon=True)
        self.avoided = avoided
        self.tasks: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.words = aligned_zeros(16, np.int64)
        self.given = self.words.ctypes.data
        self.done = self.given + 64
        self.start()

    def look_out(self, region: int, turns: int) -> None:
        """Spins until the worker has finished its part of the region, at most ``turns`` iterations."""
        spin(0, 0, self.done, region, turns, 0)

    def run(self) -> None:
        flush_denormals()
        stay_off(self.avoided)
        region = turns = 0
        soon = False
        while True:
            begin = perf_counter()
            # The end is signalled with the interpreter's lock released, so that the caller finds it free.
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
            # Deleted before the report, so that a waiting worker holds no array of the last call.
            del fn, args
            reports.append((share[0][2], failure))
            ended.put(None)
            del reports, ended, failure


def _turns(seconds: float) -> int:
    """The number of iterations of ``spin`` in ``seconds`` seconds."""
    return int(seconds * pauses_per_second())


def _cancel(claim: list[Any]) -> bool:
    """Cancels a part that has not begun; returns whether it had not."""
    try:
        claim.pop()
    except IndexError:
        return False
    return True


def _wait(reports: list[Any], ended: SimpleQueue[None], expected: int) -> KeyboardInterrupt | None:
    """Waits for all parts that have begun, through any number of interrupts, because they write to the caller's arrays.

    It counts reports, not tokens: an interrupt can lose a token that was just taken from the queue.
    """
    interrupt = None
    while len(reports) < expected:
        try:
            ended.get()
        except KeyboardInterrupt as error:
            interrupt = error
    return interrupt


def _current_pool() -> _Pool:
    """The pool of this process; a new one after a fork, because a fork does not copy threads."""
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
