"""Lines of a run, in the shape of Caffe's log wherever no one sits in front of it.

On a terminal a line is printed as it is. Elsewhere every line starts as glog's do,

    I1121 01:02:03.123456 12345 sslnet] Iteration 100, lr = 0.01

so that the scripts which read Caffe's logs read these: they take the time from the first two words of every line.

A log never ends a run. Where it cannot be written (a full disk, a terminal that is gone), the run goes on in silence
(``Patient``). Where nobody reads it any more, as in ``sslnet train 2>&1 | head``, the run is asked to stop with a snapshot
(``Log.reader_gone``), and the command ends with ``READER_GONE``.
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
"""The exit code of a command whose output nobody reads: that of a process which SIGPIPE ends."""


class RunLog:
    """Writes the lines of a run: ``log("...", "...")`` to stderr as Caffe does, ``log.result("...")`` to stdout.

    Each argument is one line: line ends in it, which can only be those of a name, are escaped as what is not printable.
    """

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.write: Callable[[str], None] = self.to_stderr
        """Where lines go; a live display puts itself in the way."""
        self.reader_gone = False
        self._on_gone: Callable[[], None] | None = None

    def __call__(self, *lines: str) -> None:
        for line in map(printable, lines):
            self.write(line if self.terminal else prefix() + line)

    def result(self, *lines: str) -> None:
        """Lines for who reads the outcome: plain, unless stdout is the very file that the log goes to."""
        stamped = not self.terminal and _same_file(sys.stdout, sys.stderr)
        for line in map(printable, lines):
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
        """While the block runs, ``stop`` is called when there is no reader any more; at once, if there is none already."""
        self._on_gone = stop
        if self.reader_gone:
            stop()
        try:
            yield
        finally:
            self._on_gone = None

    def exit_code(self, code: int) -> int:
        """The command's exit code, unless its reader is gone."""
        return READER_GONE if self.reader_gone else code


class Patient:
    """stderr where it may fail: what cannot be written is left out. A pipe without a reader is still a BrokenPipeError."""

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
    """Leads the stream nowhere, with what is still in its buffer, for the interpreter flushes it at its end."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def terminal_console() -> Console:
    """stderr for rich, which sends commands to the terminal; texts that are put into it are ``printable`` already."""
    from rich.console import Console

    return Console(file=raw(sys.stderr))


def prefix(level: str = "I") -> str:
    """The start of a glog line: level, month and day, time, process."""
    return f"{level}{datetime.now():%m%d %H:%M:%S.%f} {os.getpid():5d} sslnet] "


def number(value: float) -> str:
    """A number as C++ streams print it: six significant digits."""
    return f"{value:g}"


def loss_part(value: float, loss_weight: float) -> str:
    """`` (* 1 = 0.31 loss)`` of an output that counts in the loss; nothing for others."""
    return f" (* {number(loss_weight)} = {number(loss_weight * value)} loss)" if loss_weight else ""


def _same_file(one: TextIO, other: TextIO) -> bool:
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):
        return False
