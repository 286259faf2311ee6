"""Tapes of kernels: what they compute, how threads meet, what they do when something comes between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from sslnet.errors import UsageError
from sslnet.kernels.runtime import tape as tapes
from sslnet.kernels.runtime import team
from sslnet.kernels.runtime.affinity import current_cpu, stay_off
from sslnet.kernels.runtime.jit import spread
from sslnet.kernels.runtime.recording import CannotAppend, Scratch, appending
from sslnet.kernels.runtime.tape import KernelFailed, Tape, set_taping, taping
from sslnet.kernels.runtime.threads import parallel, region, set_deterministic, set_num_threads
from sslnet.kernels.runtime.workspace import Workspace

pytestmark = pytest.mark.skipif(not team.available(), reason="no futex on this system")


@pytest.fixture(autouse=True)
def several_threads():
    set_num_threads(3)
    yield
    set_num_threads(None)
    set_deterministic(None)


@njit(nogil=True)
def add(i0, i1, part, x, amount):
    for i in range(i0, i1):
        x[i] += amount


@njit(nogil=True)
def shift(i0, i1, part, x, y):
    """y[i] = the sum of all of x before i: reads what other parts have written before."""
    for i in range(i0, i1):
        total = 0.0
        for j in range(i + 1):
            total += x[j]
        y[i] = total


@njit(nogil=True)
def note_part(i0, i1, part, parts):
    for i in range(i0, i1):
        parts[i] = part


@njit(nogil=True)
def through_scratch(i0, i1, own, x):
    """x[i] = 2 x[i] by way of scratch memory; adds what the scratch memory held before."""
    for i in range(i0, i1):
        x[i] = 2 * x[i] + own[i - i0]
    for i in range(i0, i1):
        own[i - i0] = 7


@njit(nogil=True)
def fail(i0, i1, part, which):
    if part == which:
        raise ValueError("a kernel that fails")


def recorded(body, threads=3, workspace=None):
    tape = Tape(workspace or Workspace(), threads)
    with appending(tape):
        body()
    tape.finish()
    return tape


def with_all_threads(tape):
    """The tape, kept from choosing one thread."""
    for launch in tape._launches:
        if launch.shared:
            launch.pace = type("Always", (), {"several": True, "note": lambda self, begin, end: None})()
    return tape


@settings(deadline=None, max_examples=30)
@given(
    steps=st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=8),
    threads=st.integers(1, 5),
    deterministic=st.booleans(),
)
def test_regions_in_order_as_parallel_runs_them(steps, threads, deterministic):
    """Whatever the sizes, the threads and the parts: chains in which each region reads what the one before wrote."""
    set_num_threads(threads)
    set_deterministic(deterministic)
    x, y = np.arange(40.0), np.zeros(40)

    def body():
        for n, divided in steps:
            parallel(add, n, x, 1.0, most=None if divided else 1)
            parallel(shift, n, x, y, most=None if divided else 1)
            parallel(add, n, y, -1.0)

    body()
    wanted = x.copy(), y.copy()
    x[:], y[:] = np.arange(40), 0
    tape = with_all_threads(recorded(body, threads))
    assert (x == np.arange(40)).all(), "recording runs nothing"
    for _ in range(3):
        x[:], y[:] = np.arange(40), 0
        tape.run()
        np.testing.assert_array_equal(x, wanted[0])
        np.testing.assert_array_equal(y, wanted[1])


@pytest.mark.parametrize("n, threads", [(7, 3), (2, 3), (100, 2), (1, 2)])
def test_parts_are_those_of_parallel(n, threads):
    set_num_threads(threads)
    wanted, found = np.zeros(n), np.zeros(n)
    parallel(note_part, n, wanted)
    with_all_threads(recorded(lambda: parallel(note_part, n, found), threads)).run()
    np.testing.assert_array_equal(found, wanted)


def test_small_ranges_are_divided_at_whole_vectors():
    parts = np.zeros(10_000)
    tape = with_all_threads(recorded(lambda: spread(note_part, parts.size, 1, parts)))
    tape.run()
    starts = np.flatnonzero(np.diff(parts)) + 1
    assert len(starts) == 2 and not (starts % 64).any()


def test_scratch_memory_is_each_thread_s_own_and_cleared():
    x = np.ones(900)
    body = lambda: region(through_scratch, 900, 900, Scratch("test", 900, np.float64, False, True), x)  # noqa: E731
    tape = with_all_threads(recorded(body))
    for power in range(1, 6):
        tape.run()
        assert (x == 2.0**power).all()
    body()
    assert (x == 64).all(), "without a tape as well"


def test_tapes_with_a_common_workspace_are_outdated_when_it_grows():
    workspace = Workspace()
    x = np.ones(8)
    recorded(lambda: region(through_scratch, 8, 8, Scratch("test", 8, np.float64, False), x), workspace=workspace)
    before = workspace.version
    recorded(lambda: region(through_scratch, 8, 8, Scratch("test", 8, np.float64, False), x), workspace=workspace)
    assert workspace.version == before
    recorded(lambda: region(through_scratch, 8, 8, Scratch("test", 8000, np.float64, False), x), workspace=workspace)
    assert workspace.version > before


def test_python_functions_cannot_be_appended():
    with pytest.raises(CannotAppend):
        recorded(lambda: parallel(lambda i0, i1, part: None, 10))


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("alone", [False, True])
def test_a_kernel_that_raises_is_named_after_all_others_have_run(which, alone):
    x = np.zeros(30)
    tape = Tape(Workspace(), 3)
    with appending(tape):
        tape.label = "first"
        parallel(add, 30, x, 1.0)
        tape.label = "second"
        parallel(fail, 3, which)
        tape.label = "third"
        parallel(add, 30, x, 1.0)
    tape.finish()
    with_all_threads(tape)
    if alone:
        for launch in tape._launches:
            launch.pace.several = False
    for runs in (1, 2):
        with pytest.raises(KernelFailed) as failure:
            tape.run()
        assert failure.value.label == "second"
        assert (x == 2 * runs).all()


def test_arrays_that_have_moved_are_followed():
    x, y = np.zeros(64), np.ones(64)
    tape = with_all_threads(recorded(lambda: parallel(shift, 64, y, x)))
    news = [np.full(64, 2.0), np.zeros(64)]
    ranges = [(a.ctypes.data, a.ctypes.data + a.nbytes, b.ctypes.data - a.ctypes.data) for a, b in zip((y, x), news)]
    tape.move(ranges)
    tape.run()
    assert not x.any()
    np.testing.assert_array_equal(news[1], 2 * np.arange(1.0, 65))


def test_arrays_that_have_changed_places_are_followed():
    both = np.zeros((2, 64))
    both[0] = 1
    tape = recorded(lambda: parallel(shift, 64, both[0], both[1]), 1)
    start = both.ctypes.data
    tape.move([(start, start + 512, 512), (start + 512, start + 1024, -512)])
    both[:] = [[0] * 64, [3] * 64]
    tape.run()
    np.testing.assert_array_equal(both[0], 3 * np.arange(1.0, 65))


def test_many_barriers_with_more_threads_than_cores():
    set_num_threads(6)
    x = np.zeros(60)

    def body():
        for _ in range(200):
            parallel(add, 60, x, 1.0)

    tape = with_all_threads(recorded(body, 6))
    for _ in range(5):
        tape.run()
    assert (x == 1000).all()


def test_workers_that_sleep_are_woken():
    x = np.zeros(60)
    tape = with_all_threads(recorded(lambda: parallel(add, 60, x, 1.0)))
    for _ in range(5):
        tape.run()
        time.sleep(0.02)
    assert (x == 5).all()


def test_two_python_threads_run_tapes_at_the_same_time():
    """One has the team; the other runs all parts itself."""
    arrays = [np.zeros(3000) for _ in range(4)]
    made = [with_all_threads(recorded(lambda x=x: [parallel(add, 3000, x, 1.0) for _ in range(20)])) for x in arrays]
    failures = []

    def work(tape):
        try:
            for _ in range(50):
                tape.run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(tape,)) for tape in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all((x == 1000).all() for x in arrays)


def test_tape_beside_parallel_in_another_thread():
    x, y = np.zeros(3000), np.zeros(3000)
    tape = with_all_threads(recorded(lambda: parallel(add, 3000, x, 1.0)))
    thread = threading.Thread(target=lambda: [parallel(add, 3000, y, 1.0) for _ in range(200)])
    thread.start()
    for _ in range(200):
        tape.run()
        parallel(add, 3000, x, 1.0)
    thread.join()
    assert (x == 400).all() and (y == 200).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_makes_workers_of_its_own():
    x = np.zeros(3000)
    tape = with_all_threads(recorded(lambda: parallel(add, 3000, x, 1.0)))
    tape.run()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        tape.run()
        os._exit(0 if (x == 2).all() else 1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0
    tape.run()
    assert (x == 2).all()


def test_interrupts_come_between_launches(monkeypatch):
    """A tape that takes long is cut, and nothing is left half done for the next run."""
    monkeypatch.setattr(tapes, "LAUNCH", 10_000)  # multiply-adds; parallel itself counts one for each item
    x = np.zeros(3000)
    tape = with_all_threads(recorded(lambda: [parallel(add, 3000, x, 1.0) for _ in range(12)]))
    assert len(tape._launches) == 4
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        third = tape._launches[2]
        real = third.run
        third.run = lambda: signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            tape.run()
        third.run = real
    finally:
        signal.signal(signal.SIGINT, before)
    assert (x == 6).all()
    tape.run()
    assert (x == 18).all()


def test_denormals_are_flushed_in_all_threads_and_the_setting_is_restored():
    import platform

    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("only x86 has the setting")
    x = np.full(3000, 1e-40, np.float32)

    def body():
        parallel(scale, 3000, x, np.float32(0.5))

    tape = with_all_threads(recorded(body))
    tape.run()
    assert not x.any()
    assert np.full(1, 1e-40, np.float32) * np.float32(0.5)


@njit(nogil=True)
def scale(i0, i1, part, x, factor):
    for i in range(i0, i1):
        x[i] *= factor


def test_process_ends_while_workers_wait():
    code = """
import numpy as np
from sslnet.kernels.runtime.fill import _clear
from sslnet.kernels.runtime.recording import appending
from sslnet.kernels.runtime.tape import Tape
from sslnet.kernels.runtime.threads import parallel, set_num_threads
from sslnet.kernels.runtime.workspace import Workspace
set_num_threads(2)
x = np.ones(1000, np.float32)
tape = Tape(Workspace(), 2)
with appending(tape):
    parallel(_clear, 1000, x)
tape.finish()
tape.run()
print(int(x.sum()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


@pytest.mark.parametrize("text, expected", [("", True), ("1", True), ("0", False)])
def test_switch_comes_from_the_environment(monkeypatch, text, expected):
    set_taping(None)
    monkeypatch.setenv("SSLNET_TAPE", text)
    assert taping() is expected
    set_taping(None)


def test_switch_that_is_neither_is_an_error(monkeypatch):
    set_taping(None)
    monkeypatch.setenv("SSLNET_TAPE", "on")
    with pytest.raises(UsageError, match='SSLNET_TAPE must be 0 or 1, not "on"'):
        taping()
    set_taping(None)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_thread_stays_off_a_core_if_it_may_use_another():
    found = []

    def work(cpu):
        stay_off(cpu)
        found.append(os.sched_getaffinity(0))

    allowed = os.sched_getaffinity(0)
    cpu = current_cpu()
    assert cpu in allowed
    for avoided in (cpu, None):
        thread = threading.Thread(target=work, args=(avoided,))
        thread.start()
        thread.join()
    assert found[1] == allowed
    assert found[0] == allowed - {cpu} or (found[0] < allowed and cpu not in found[0]) or found[0] == allowed == {cpu}
    assert os.sched_getaffinity(0) == allowed, "only the worker is limited"
