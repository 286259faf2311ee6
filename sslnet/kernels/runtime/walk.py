"""The native code that runs a tape: rows of calls and barriers, one list for each thread.

A row is four words: BARRIER or CALL, trampoline, function, address of the argument words (``native``). A barrier is
left when all threads of the tape have reached it. While a thread waits it spins, for a time that follows its
experience: ``patience`` while the waits end awake, a tenth of it after waits that ended asleep, because then the other
threads do not have the cores that they would need. After that it sleeps in the kernel (futex), so that a waiting
thread never holds up one that works.

Memory of a team, in words of 8 bytes, all shared by its threads:

    header           OWNER; on its second cache line MET, GENERATION, PATIENCE, IMPATIENCE, FUNCTION, NUMBER
    block of thread  32 words each from BLOCKS on. A cache line each: GIVEN, ASLEEP (the last launch, and whether the
                     worker sleeps until the next one); ARRIVED, WAITED_FOR (barriers that it has reached, and whether
                     threads sleep until it comes); ROWS, COUNT, THREADS, BASE (its work); OWN_PATIENCE, SLEEPS, STATUS
"""

from __future__ import annotations

from numba import njit

from sslnet.kernels.runtime.atomics import call_seven, call_two, exchange, load, pause, store, word_at
from sslnet.kernels.runtime.compiler import COMMON
from sslnet.kernels.runtime.denormals import exchange_setting

CALL, BARRIER = 0, 1
ROW_WORDS = 4

OWNER = 0
MET, GENERATION, PATIENCE, IMPATIENCE, FUNCTION, NUMBER = 64, 72, 80, 88, 96, 104
BLOCKS = 256
BLOCK = 256
GIVEN, ASLEEP = 0, 8
ARRIVED, WAITED_FOR = 64, 72
ROWS, COUNT, THREADS, BASE = 128, 136, 144, 152
OWN_PATIENCE, SLEEPS, STATUS = 192, 200, 208

FUTEX_WAIT, FUTEX_WAKE = 128, 129
"""FUTEX_WAIT_PRIVATE and FUTEX_WAKE_PRIVATE."""
RETRY = 8
"""After so many waits that ended asleep a thread spins for the whole patience once."""


@njit("int64(int64, int64, int64, int64)", **COMMON)
def _futex(team, word, operation, value):
    """Sleeps while the low 32 bits of the word are those of ``value``, or wakes so many threads that do."""
    return call_seven(word_at(team + FUNCTION), word_at(team + NUMBER), word, operation, value, 0, 0, 0)


@njit("void(int64, int64, int64, int64, int64)", **COMMON)
def _wait(team, own, word, wanted, flag):
    """Waits until the word is at least ``wanted``; ``flag`` tells its writer that a thread sleeps on it."""
    turns = 0
    patience = word_at(own + OWN_PATIENCE)
    slept = False
    while load(word) < wanted:
        turns += 1
        if turns < patience:
            pause()
            continue
        exchange(flag, 1)
        now = load(word)
        if now < wanted:
            _futex(team, word, FUTEX_WAIT, now)
            slept = True
    if slept:
        sleeps = word_at(own + SLEEPS) + 1
        store(own + SLEEPS, sleeps)
        store(own + OWN_PATIENCE, word_at(team + PATIENCE) if sleeps % RETRY == 0 else word_at(team + IMPATIENCE))
    else:
        store(own + OWN_PATIENCE, word_at(team + PATIENCE))


@njit("void(int64, int64, int64, int64)", **COMMON)
def _meet(team, thread, threads, number):
    """Returns when all threads have reached barrier ``number``."""
    own = team + BLOCKS + BLOCK * thread
    # The exchange is a fence: a thread that has told that it sleeps sees the new number, or this one sees the flag.
    exchange(own + ARRIVED, number)
    if load(own + WAITED_FOR) != 0:
        store(own + WAITED_FOR, 0)
        _futex(team, own + ARRIVED, FUTEX_WAKE, threads)
    for k in range(1, threads):
        other = team + BLOCKS + BLOCK * ((thread + k) % threads)
        _wait(team, own, other + ARRIVED, number, other + WAITED_FOR)


@njit("int64(int64, int64)", **COMMON)
def _walk_alone(rows, count):
    """Runs all calls; returns the number of the first row that failed, from 1, or 0."""
    failed = 0
    for k in range(count):
        row = rows + 32 * k
        if call_two(word_at(row + 8), word_at(row + 16), word_at(row + 24)) != 0 and failed == 0:
            failed = k + 1
    return failed


@njit("int64(int64, int64, int64, int64, int64, int64)", **COMMON)
def _walk(team, thread, threads, rows, count, base):
    """Runs the calls of one thread, and meets the others at the barriers; returns as ``_walk_alone``.

    [overwrites the thread's STATUS where a row fails, before the next barrier]
    """
    failed = 0
    met = base
    for k in range(count):
        row = rows + 32 * k
        if word_at(row) == BARRIER:
            met += 1
            _meet(team, thread, threads, met)
        elif call_two(word_at(row + 8), word_at(row + 16), word_at(row + 24)) != 0 and failed == 0:
            failed = k + 1
            store(team + BLOCKS + BLOCK * thread + STATUS, failed)
    return failed


@njit("void(int64, int64, int64)", **COMMON)
def serve(team, thread, seen):
    """The life of a worker: waits for a launch after ``seen``, runs its rows, again. It never returns."""
    own = team + BLOCKS + BLOCK * thread
    store(own + OWN_PATIENCE, word_at(team + PATIENCE))
    while True:
        _wait(team, own, own + GIVEN, seen + 1, own + ASLEEP)
        seen = load(own + GIVEN)
        base = word_at(own + BASE)
        _walk(team, thread, word_at(own + THREADS), word_at(own + ROWS), word_at(own + COUNT), base)


@njit("int64(int64, int64)", **COMMON)
def run_alone(rows, count):
    """Runs the rows of one thread with denormals flushed; returns the number of the first that failed, from 1, or 0."""
    setting = exchange_setting(0, True)
    failed = _walk_alone(rows, count)
    exchange_setting(setting, False)
    return failed


@njit("int64(int64, int64, int64, int64, int64, int64)", **COMMON)
def run_together(team, table, threads, barriers, alone, count):
    """Runs the rows of all threads: of thread 0 here, of the others by the workers of the team.

    table      (threads, 2) int64: address and number of each thread's rows; all have ``barriers`` barriers, the last
               row is one
    alone      address and number of the rows that run everything in one thread, if the workers are busy for another
               caller
    returns    0, or thread * 2**32 + number of the row that failed, from 1; -1 - number if it was run alone
    """
    setting = exchange_setting(0, True)
    if exchange(team + OWNER, 1) != 0:
        failed = -_walk_alone(alone, count)
        exchange_setting(setting, False)
        return failed
    base = word_at(team + MET)
    generation = word_at(team + GENERATION) + 1
    store(team + GENERATION, generation)
    for t in range(1, threads):
        block = team + BLOCKS + BLOCK * t
        store(block + ROWS, word_at(table + 16 * t))
        store(block + COUNT, word_at(table + 16 * t + 8))
        store(block + THREADS, threads)
        store(block + BASE, base)
        store(block + STATUS, 0)
        exchange(block + GIVEN, generation)
        if load(block + ASLEEP) != 0:
            store(block + ASLEEP, 0)
            _futex(team, block + GIVEN, FUTEX_WAKE, 1)
    failed = _walk(team, 0, threads, word_at(table), word_at(table + 8), base)
    for t in range(1, threads):
        status = load(team + BLOCKS + BLOCK * t + STATUS)
        if failed == 0 and status != 0:
            failed = (t << 32) + status
    store(team + MET, base + barriers)
    store(team + OWNER, 0)
    exchange_setting(setting, False)
    return failed
