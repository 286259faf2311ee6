"""The team: worker threads that live in native code and run tapes together with the thread that launches them.

Workers never need the interpreter's lock. They exist once per process, for the threads that tapes have asked for; a
child process makes its own, because a fork does not copy threads. Only Linux offers the wait that they need (futex);
elsewhere ``available`` is False, and tapes run in one thread.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from functools import cache

import numpy as np

from sslnet.kernels.runtime import walk
from sslnet.kernels.runtime.affinity import current_cpu, stay_off
from sslnet.kernels.runtime.cores import usable_cores
from sslnet.kernels.runtime.denormals import flush_denormals
from sslnet.kernels.runtime.memory import aligned_zeros
from sslnet.kernels.runtime.spin_wait import pauses_per_second

PATIENCE = 50e-6
"""Seconds that a thread spins for another one before it sleeps, while its waits end awake."""
IMPATIENCE = 5e-6
"""The same after a wait that ended asleep."""

_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 0)
"""The number of the system call futex; 0: not known."""


@cache
def available() -> bool:
    """Whether workers can wait for each other on this system."""
    return bool(sys.platform.startswith("linux") and _FUTEX and sys.byteorder == "little" and _syscall())


@cache
def _syscall() -> int:
    """The address of the C library's function syscall; 0 without one."""
    try:
        return ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


class Team:
    """The caller and ``threads`` - 1 workers; ``address`` is the memory that they share, laid out as in ``walk``."""

    def __init__(self, threads: int) -> None:
        self.pid = os.getpid()
        self.threads = threads
        self.words = aligned_zeros((walk.BLOCKS + walk.BLOCK * threads) // 8, np.int64)
        # Workers read it until the process ends, also while the interpreter frees its modules.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.words.base))
        self.address: int = self.words.ctypes.data
        cores = usable_cores()
        per_second = pauses_per_second()
        # With more threads than cores a thread that spins would keep others from their work.
        spins = (PATIENCE, IMPATIENCE) if threads <= cores else (0, 0)
        for place, value in (
            (walk.PATIENCE, int(spins[0] * per_second)),
            (walk.IMPATIENCE, int(spins[1] * per_second)),
            (walk.FUNCTION, _syscall()),
            (walk.NUMBER, _FUTEX),
        ):
            self.words[place // 8] = value
        self.words[(walk.BLOCKS + walk.OWN_PATIENCE) // 8] = self.words[walk.PATIENCE // 8]
        avoided = current_cpu() if threads <= cores else None
        for number in range(1, threads):
            life = threading.Thread(target=_live, args=(self.address, number, avoided), daemon=True)
            life.name = f"sslnet-tape-{number}"
            life.start()


def _live(team: int, number: int, avoided: int | None) -> None:
    flush_denormals()
    stay_off(avoided)
    walk.serve(team, number, 0)


def current_team(threads: int) -> Team:
    """The team of this process, with at least so many threads."""
    global _team
    team = _team
    if team is None or team.pid != os.getpid() or team.threads < threads:
        with _lock:
            team = _team
            if team is None or team.pid != os.getpid() or team.threads < threads:
                team = _team = Team(threads)
    return team


def _after_fork() -> None:
    global _lock, _team
    _lock, _team = threading.Lock(), None


_lock = threading.Lock()
_team: Team | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
