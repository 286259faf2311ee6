"""Child processes, forked from this process so that kernels and modules are loaded, with limits."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DIE_WITH_PARENT = 1
"""prctl's option PR_SET_PDEATHSIG."""
ARENAS = -8
"""mallopt's option M_ARENA_MAX."""
ESCAPED = 99
"""Exit code of a child whose function raised: the traceback is in its output."""
READ_AT_MOST = 1 << 20
"""Maximum number of characters of a child's output that are kept."""


@dataclass
class Ended:
    """The end of a child process. code: its exit code, minus a signal's number, or None if it was killed for taking too
    long."""

    code: int | None
    output: str
    seconds: float


class Child:
    """A forked process that runs `function`, whose result is its exit code.

    output       file for stdout and stderr
    before       called in the child first, with stdout and stderr in place: limits, other streams
    function     a KeyboardInterrupt that it does not catch is exit code 130
    """

    def __init__(self, function: Callable[[], int], output: Path, before: Callable[[], object] | None = None) -> None:
        self.output = output
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._live(function, before)
        self._handle: int | None = os.pidfd_open(self.pid)

    def _live(self, function: Callable[[], int], before: Callable[[], object] | None) -> None:
        code = ESCAPED
        try:
            die_with_parent()
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            target = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            os.dup2(target, 1)
            os.dup2(target, 2)
            faulthandler.enable(os.fdopen(os.dup(target), "wb", 0))  # stays usable whatever becomes of stderr
            if before is not None:
                before()
            renew_streams()
            code = function()
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            with contextlib.suppress(Exception):
                traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code & 255)

    def wait(self, seconds: float) -> bool:
        """Waits at most so many seconds; returns whether the child has ended."""
        assert self._handle is not None
        return bool(select.select([self._handle], [], [], max(0.0, seconds))[0])

    def send(self, number: int) -> None:
        """Sends a signal; does nothing if the child has ended."""
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, seconds: float) -> Ended:
        """Waits so many seconds, then kills the child and records that it took too long."""
        ended = self.wait(seconds)
        if not ended:
            self.kill()
        code = self._reap()
        return Ended(code if ended else None, self.read_output(), time.monotonic() - self.started)

    def kill(self) -> None:
        """Kills the child with SIGKILL."""
        self.send(signal.SIGKILL)

    def _reap(self) -> int:
        assert self._handle is not None
        _, status = os.waitpid(self.pid, 0)
        os.close(self._handle)
        self._handle = None
        return os.waitstatus_to_exitcode(status)

    def read_output(self) -> str:
        with open(self.output, errors="replace") as file:
            return file.read(READ_AT_MOST)


def run(
    function: Callable[[], int], output: Path, *, seconds: float = 300, before: Callable[[], object] | None = None
) -> Ended:
    """Runs a child to its end."""
    return Child(function, output, before).end(seconds)


def command(arguments: list[str]) -> Callable[[], int]:
    """A function that runs `sslnet ARGUMENTS` in a child."""

    def call() -> int:
        from sslnet.cli import main

        return main(arguments)

    return call


def renew_streams() -> None:
    """Recreates stdout and stderr for their current descriptors, as a new interpreter does."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        try:
            raw = io.FileIO(number, "w", closefd=False)
        except OSError:  # closed
            setattr(sys, name, None)
            continue
        buffered = io.BufferedWriter(raw)
        setattr(sys, name, io.TextIOWrapper(buffered, "utf-8", line_buffering=number == 2 or raw.isatty()))


def die_with_parent() -> None:
    """Makes the kernel kill this process when its parent ends."""
    _libc().prctl(DIE_WITH_PARENT, signal.SIGKILL)


def few_arenas() -> None:
    """Lets threads share the allocator's arenas: each reserves 64 MiB of address space, which limits of it would count."""
    _libc().mallopt(ARENAS, 2)


def limit_address_space(more: int) -> None:
    """Limits the address space to the bytes mapped now plus so many more."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, mapped + more))


def cpu_seconds(pid: int) -> float:
    """CPU seconds of all threads of a process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident() -> int:
    """The resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def descriptors() -> int:
    """Open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
