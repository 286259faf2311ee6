"""Keeps a worker thread off the core on which its caller runs.

A worker that is woken on its caller's core waits there until the caller waits for it, which takes longer than most
parallel regions. The scheduler moves one of them only after some milliseconds. Linux only; elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

from sslnet.kernels.runtime.cores import siblings


def current_cpu() -> int | None:
    """The CPU on which the calling thread runs now; None where the system does not say."""
    function = _sched_getcpu()
    number = function() if function is not None else -1
    return number if number >= 0 else None


def stay_off(cpu: int | None) -> None:
    """Limits the calling thread to the CPUs that it may use, without those of the core of ``cpu``, if any are left."""
    if cpu is None or not hasattr(os, "sched_setaffinity"):
        return
    try:
        allowed = os.sched_getaffinity(0)
        core = siblings(cpu)
        others = {other for other in allowed if siblings(other) != core}
        if others and others != allowed:
            os.sched_setaffinity(0, others)
    except OSError:  # a container may forbid it
        return


@cache
def _sched_getcpu() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None).sched_getcpu
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [], ctypes.c_int
    return function
