"""threads.parallel: the partition, its failures, and the ways in which others can get in between."""

import gc
import multiprocessing
import os
import platform
import signal
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from sslnet.errors import UsageError
from sslnet.kernels.runtime import threads
from sslnet.kernels.runtime.cores import usable_cores
from sslnet.kernels.runtime.spin_wait import spin
from sslnet.kernels.runtime.threads import (
    DETERMINISTIC_PARTS,
    deterministic,
    num_parts,
    num_threads,
    parallel,
    set_deterministic,
    set_num_threads,
)


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """As in a shell's foreground: a process that was started in the background ignores SIGINT from its birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # what others have hung into collections would swallow an interrupt
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def four_threads():
    set_num_threads(4)
    yield
    set_num_threads(None)


@njit(nogil=True)
def count_up(i0, i1, thread, counts):
    for i in range(i0, i1):
        counts[i] += 1


@njit(nogil=True)
def halve(i0, i1, thread, values):
    for i in range(i0, i1):
        values[i] *= 0.5


def parts_of(n, count):
    set_num_threads(count)
    parts = []
    parallel(lambda i0, i1, thread: parts.append((thread, i0, i1)), n)
    return sorted(parts)


@settings(deadline=None)
@given(n=st.integers(0, 50), count=st.integers(1, 9))
def test_partition_covers_the_range_once_in_order(n, count):
    parts = parts_of(n, count)
    assert [i for _, i0, i1 in parts for i in range(i0, i1)] == list(range(n))
    assert [thread for thread, _, _ in parts] == list(range(min(n, count)))


def test_partition_runs_a_numba_function():
    counts = np.zeros(1000, np.int64)
    parallel(count_up, counts.size, counts)
    assert (counts == 1).all()


def test_parts_run_in_different_threads():
    barrier = threading.Barrier(4, timeout=20)
    seen = set()

    def meet(i0, i1, thread):
        barrier.wait()
        seen.add(threading.get_ident())

    parallel(meet, 4)
    assert len(seen) == 4


@pytest.mark.parametrize("failing", [0, 3])
def test_exception_of_a_part_is_raised_after_the_others_ended(failing):
    ended = []

    def work(i0, i1, thread):
        if thread == failing:
            raise ZeroDivisionError(f"part {thread}")
        time.sleep(0.05)
        ended.append(thread)

    with pytest.raises(ZeroDivisionError, match=f"part {failing}"):
        parallel(work, 4)
    before = list(ended)
    time.sleep(0.15)
    assert ended == before
    assert parts_of(8, 4) == [(0, 0, 2), (1, 2, 4), (2, 4, 6), (3, 6, 8)]


def test_nested_call_runs_the_same_parts_serially():
    inner = [[] for _ in range(4)]

    def outer(i0, i1, thread):
        me = threading.get_ident()
        parallel(lambda a, b, t: inner[thread].append((threading.get_ident() == me, t, a, b)), 10)

    parallel(outer, 4)
    assert inner == [[(True, 0, 0, 2), (True, 1, 2, 5), (True, 2, 5, 7), (True, 3, 7, 10)]] * 4


def test_two_python_threads_may_call_at_once():
    totals = np.zeros((2, 64), np.int64)

    def caller(row):
        for _ in range(200):
            parallel(count_up, 64, totals[row])

    callers = [threading.Thread(target=caller, args=(row,)) for row in range(2)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert (totals == 200).all()


def test_keyboard_interrupt_leaves_the_workers_in_step():
    finished = []

    def work(i0, i1, thread):
        if thread == 0:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        finished.append(thread)

    with pytest.raises(KeyboardInterrupt):
        parallel(work, 4)
    # Parts that had begun were waited for; none begins later.
    before = list(finished)
    time.sleep(0.2)
    assert finished == before
    for _ in range(20):
        counts = np.zeros(100, np.int64)
        parallel(count_up, 100, counts)
        assert (counts == 1).all()


def test_keyboard_interrupt_while_waiting_waits_for_the_parts():
    finished = []

    def work(i0, i1, thread):
        if thread == 0:
            return
        if thread == 1:
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        finished.append(thread)

    with pytest.raises(KeyboardInterrupt):
        parallel(work, 4)
    assert sorted(finished) == [1, 2, 3]


def _count_in_child(queue):
    counts = np.zeros(100, np.int64)
    parallel(count_up, 100, counts)
    queue.put(int(counts.sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_gets_workers_of_its_own():
    _count_in_child_warmup = np.zeros(4, np.int64)
    parallel(count_up, 4, _count_in_child_warmup)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_count_in_child, args=(queue,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get() == 100


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="denormals are flushed on x86 only")
def test_denormals_are_flushed_in_every_part_and_kept_outside():
    values = np.full(8, 1e-40, np.float32)
    outside = values[:1].copy()
    parallel(halve, values.size, values)
    halve(0, 1, 0, outside)
    assert (values == 0).all()
    assert outside[0] > 0


def test_number_of_threads_comes_from_the_environment(monkeypatch):
    set_num_threads(None)
    monkeypatch.setenv("SSLNET_NUM_THREADS", "3")
    assert num_threads() == 3
    set_num_threads(None)
    monkeypatch.delenv("SSLNET_NUM_THREADS")
    assert num_threads() == usable_cores()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_number_of_threads_that_is_none_is_an_error(monkeypatch, text):
    set_num_threads(None)
    monkeypatch.setenv("SSLNET_NUM_THREADS", text)
    with pytest.raises(UsageError, match=f'SSLNET_NUM_THREADS must be a whole number of at least 1, not "{text}"'):
        num_threads()


def test_set_num_threads_refuses_zero():
    with pytest.raises(UsageError, match="at least 1, not 0"):
        set_num_threads(0)


def test_blas_is_limited_to_one_thread():
    import threadpoolctl

    np.ones((2, 2)) @ np.ones((2, 2))
    parallel(count_up, 4, np.zeros(4, np.int64))
    assert {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"} <= {
        1
    }


def test_at_most_as_many_parts_as_asked_for():
    parts = []
    parallel(lambda i0, i1, thread: parts.append((thread, i0, i1)), 10, most=2)
    assert sorted(parts) == [(0, 0, 5), (1, 5, 10)]


# -- results that do not depend on the threads ---------------------------------------------------------------------------


@pytest.fixture
def fixed_parts():
    set_deterministic(True)
    yield
    set_deterministic(None)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_deterministic_partition_is_the_same_for_any_number_of_threads(count, fixed_parts):
    assert num_parts() == DETERMINISTIC_PARTS
    assert parts_of(20, count) == [(k, 20 * k // 8, 20 * (k + 1) // 8) for k in range(8)]
    assert parts_of(3, count) == [(0, 0, 1), (1, 1, 2), (2, 2, 3)]


def test_deterministic_parts_are_shared_out_over_the_threads(fixed_parts):
    set_num_threads(3)
    who = {}
    barrier = threading.Barrier(3, timeout=20)

    def work(i0, i1, part):
        if part in (0, 2, 5):  # the first part of each thread
            barrier.wait()
        who.setdefault(threading.get_ident(), []).append(part)

    parallel(work, 8)
    assert sorted(who.values()) == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert who[threading.get_ident()] == [0, 1]


def test_failure_in_a_later_part_of_a_worker_is_raised(fixed_parts):
    done = []

    def work(i0, i1, part):
        if part == 6:
            raise ZeroDivisionError("part 6")
        done.append(part)

    set_num_threads(2)
    with pytest.raises(ZeroDivisionError, match="part 6"):
        parallel(work, 8)
    assert sorted(done) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("text, expected", [("1", True), ("0", False), ("", False)])
def test_determinism_comes_from_the_environment(monkeypatch, text, expected):
    set_deterministic(None)
    monkeypatch.setenv("SSLNET_DETERMINISTIC", text)
    assert deterministic() is expected
    assert num_parts() == (DETERMINISTIC_PARTS if expected else num_threads())
    set_deterministic(None)


def test_determinism_that_is_neither_is_an_error(monkeypatch):
    set_deterministic(None)
    monkeypatch.setenv("SSLNET_DETERMINISTIC", "yes")
    with pytest.raises(UsageError, match='SSLNET_DETERMINISTIC must be 0 or 1, not "yes"'):
        deterministic()


def test_sums_are_sized_by_parts_not_by_threads():
    """Whoever keeps a sum for each part asks for num_parts: there may be more parts than threads."""
    import sslnet

    package = Path(sslnet.__file__).parent
    folders = (path for name in ("kernels", "layers", "steps") for path in (package / name).rglob("*.py"))
    users = {path.name for path in folders if "num_threads" in path.read_text(encoding="utf-8")}
    assert users == {"threads.py"}


def test_fork_of_a_process_whose_workers_are_busy_gets_workers_of_its_own():
    """The child begins while the parent's pool is taken; its own pool must not be."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    seen = []

    def work(i0, i1, part):
        if part == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                counts, idents = np.zeros(4, np.int64), set()
                barrier = threading.Barrier(4, timeout=20)

                def meet(a, b, p):
                    barrier.wait()
                    idents.add(threading.get_ident())
                    counts[a:b] += 1

                try:
                    parallel(meet, 4)
                finally:
                    os._exit(0 if len(idents) == 4 and (counts == 1).all() else 1)
            seen.append(os.waitpid(child, 0)[1])

    parallel(work, 4)
    assert seen == [0]


def test_interrupts_at_any_moment_leave_the_workers_usable():
    """Ctrl-C at many moments of a region, again and again: the next regions cover their ranges once."""
    values = np.ones(1 << 16)
    for delay in np.linspace(0, 3e-3, 25):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            end = time.monotonic() + 10
            while time.monotonic() < end:
                parallel(halve, values.size, values)
        except KeyboardInterrupt:
            pass
        timer.join()
        assert (np.full(4, 1e-39, np.float32) * np.float32(0.5)).any(), "denormals are flushed outside of regions"
        seen = set()
        parallel(lambda i0, i1, part, seen=seen: (time.sleep(1e-3), seen.add(threading.get_ident())), 4)
        assert len(seen) == 4, "the workers are not given back"
        counts = np.zeros(1000, np.int64)
        parallel(count_up, 1000, counts)
        assert (counts == 1).all()


# -- looking out before going to sleep -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 64])
def test_regions_in_quick_and_slow_succession_cover_their_ranges_once(cores, monkeypatch):
    """Workers that look out (as many cores as threads) and workers that sleep at once, with pauses of all lengths between."""
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    monkeypatch.setattr(threads, "_pool", None)
    counts = np.zeros(64, np.int64)
    pauses = [0, 0, 50e-6, 0, 300e-6, 100e-6, 200e-6, 0, 2e-3]
    for turn in range(300):
        parallel(count_up, counts.size, counts)
        assert (counts == turn + 1).all()
        time.sleep(pauses[turn % len(pauses)])


def test_interrupts_while_threads_look_out_leave_the_workers_usable(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 64)
    monkeypatch.setattr(threads, "_pool", None)
    test_interrupts_at_any_moment_leave_the_workers_usable()


def test_workers_without_work_use_no_processor_time(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 64)
    monkeypatch.setattr(threads, "_pool", None)
    for _ in range(100):
        parallel(count_up, 64, np.zeros(64, np.int64))
    time.sleep(0.05)
    begin = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - begin < 0.1


def test_spin_ends_when_the_number_comes_or_after_its_turns():
    words = np.zeros(32, np.int64)
    told, watched = words.ctypes.data, words.ctypes.data + 128
    assert not spin(told, 7, watched, 1, 10, 0)
    assert words[0] == 7
    assert not spin(0, 8, watched, 1, 0, 0)
    assert words[0] == 7
    timer = threading.Timer(0.02, words.__setitem__, (16, 3))
    timer.start()
    assert spin(told, 9, watched, 3, 1 << 62, 5)
    timer.join()
    assert list(words[[0, 16]]) == [9, 3]
