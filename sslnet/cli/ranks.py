"""Commands under an MPI launcher (``mpirun -n 8 sslnet train ...``): which may run so, and how they end.

An error on one rank must end all, as the others would wait for it: it is printed with the number of the rank, and MPI
ends the other processes. Where all ranks meet the same error, rank 0 is the first to say so.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sslnet.errors import UsageError
from sslnet.ranks.launcher import launched_rank, launched_size

if TYPE_CHECKING:
    from sslnet.ranks.group import Group

COMMANDS = ("train", "test")
"""The commands that several ranks run together."""
DELAY = 0.3
"""Seconds that a rank other than 0 waits before it reports an error, which rank 0 may report as well."""
PATIENCE = 2.0
"""Seconds in which another Ctrl-C is the same one: the terminal and the launcher both pass it on."""

_failed = False


def run_command(name: str, run: Callable[[Any], int], options: Any) -> int:
    """Runs a command: as usual, or as one of several ranks. raises UsageError if it does not run on several"""
    global _failed
    _failed = False
    if launched_size() == 1:
        return run(options)
    if name not in COMMANDS:
        raise UsageError(
            f"a launcher has started {launched_size()} processes, but sslnet {name} runs in one",
            hint=f"start it without a launcher; several ranks run: {', '.join(COMMANDS)}",
        )
    try:
        return run(options)
    except BaseException:
        _failed = True
        if launched_rank():
            time.sleep(DELAY + 0.01 * min(launched_rank(), 100))
        raise


def label() -> str:
    """What a message about an error begins with: "rank 3: " where several run a command."""
    return f"rank {launched_rank()}: " if _failed else ""


def is_silent() -> bool:
    """Whether another rank prints the same message: about a command line, which is the same for all."""
    return launched_rank() > 0 and not _failed


def end(code: int) -> int:
    """Ends all ranks, if the command has failed on this one; returns the exit code."""
    mpi: Any = getattr(sys.modules.get("mpi4py"), "MPI", None)
    if _failed and mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        mpi.COMM_WORLD.Abort(code or 1)
    return code


def join_ranks(threads: int | None) -> Group | None:
    """The ranks of this command, which divide the cores of each machine among them; None without a launcher.

    threads   number of threads that the command line gives; None: the cores of the machine / its ranks
    """
    if launched_size() == 1:
        return None
    from sslnet.kernels.runtime.cores import usable_cores
    from sslnet.kernels.runtime.threads import VARIABLE, set_num_threads
    from sslnet.ranks.group import MpiGroup

    group = MpiGroup()
    if threads is None and not os.environ.get(VARIABLE, "").strip():
        cpus = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
        mine = (group.ranks_on_nodes[group.rank], cpus)
        sharing = group.exchange(mine).count(mine)  # a launcher may have bound each rank to cores of its own
        set_num_threads(max(1, usable_cores() // sharing))
    return group
