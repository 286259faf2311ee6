"""The log of a run, in the format of Caffe's log unless stderr is a terminal.

On a terminal a line is printed as it is. Elsewhere every line starts as glog's do,

    I1121 01:02:03.123456 12345 sslnet] Iteration 100, lr = 0.01

so that scripts for Caffe's logs can read it: they take the time from the first two words of every line.

A log never ends a run. If it cannot be written (a full disk, a closed terminal), the run continues without it
(``Patient``). If its reader is gone, as in ``sslnet train 2>&1 | head``, the run stops with a snapshot
(``RunLog.stopping``), and the command ends with ``READER_GONE``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from sslnet.errors import printable
from sslnet.terminal import raw

if TYPE_CHECKING:
    from rich.console import Console

READER_GONE = 141
"""The exit code of a command whose output has no reader: that of a process ended by SIGPIPE."""


class RunLog:
    """Writes the lines of a run: ``log("...", "...")`` to stderr as Caffe does, ``log.result("...")`` to stdout.

    Each argument is one line: line ends in it can only come from a name, and are escaped.

    silent   write nothing: another process of the run writes the same
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.terminal = sys.stderr.isatty() and not silent
        self.write: Callable[[str], None] = self.to_stderr
        """Where lines go; a live display puts itself in the way."""
        self.reader_gone = False
        self._on_gone: Callable[[], None] | None = None

    def __call__(self, *lines: str) -> None:
        for line in map(printable, () if self.silent else lines):
            self.write(line if self.terminal else prefix() + line)

    def result(self, *lines: str) -> None:
        """Writes lines of the result to stdout: plain, unless stdout is the same file as the log."""
        stamped = not self.terminal and _same_file(sys.stdout, sys.stderr)
        for line in map(printable, () if self.silent else lines):
            print(prefix() + line if stamped else line, file=sys.stdout, flush=True)

    def to_stderr(self, line: str) -> None:
        if self.reader_gone:
            return
        try:
            print(line, file=sys.stderr, flush=True)
        except BrokenPipeError:
            self.reader_gone = True
            silence(sys.stderr)
            if self._on_gone is not None:
                self._on_gone()

    @contextlib.contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Calls ``stop`` when the log's reader is gone, while the block runs; at once if it is gone already."""
        self._on_gone = stop
        if self.reader_gone:
            stop()
        try:
            yield
        finally:
            self._on_gone = None

    def exit_code(self, code: int) -> int:
        """The given exit code, or READER_GONE if the log's reader is gone."""
        return READER_GONE if self.reader_gone else code


class Patient:
    """A stderr that drops what cannot be written. A pipe without a reader still raises BrokenPipeError."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with _left_out():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _left_out():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _left_out() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass
    except RuntimeError:  # from a signal's handler, amid a write to the same stream: Python allows no other one
        pass


def silence(stream: TextIO) -> None:
    """Redirects the stream, with the contents of its buffer, to the null device: the interpreter flushes it at its end."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def terminal_console() -> Console:
    """The stderr for rich, which may control the terminal; texts for it must be ``printable`` already."""
    from rich.console import Console

    return Console(file=raw(sys.stderr))


def prefix(level: str = "I") -> str:
    """The start of a glog line: level, month and day, time, process."""
    return f"{level}{datetime.now():%m%d %H:%M:%S.%f} {os.getpid():5d} sslnet] "


def number(value: float) -> str:
    """A number as C++ streams print it: six significant digits."""
    return f"{value:g}"


def loss_part(value: float, loss_weight: float) -> str:
    """The words `` (* 1 = 0.31 loss)`` for an output with a loss weight; empty for others."""
    return f" (* {number(loss_weight)} = {number(loss_weight * value)} loss)" if loss_weight else ""


def _same_file(one: TextIO, other: TextIO) -> bool:
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):
        return False
