"""Lines of a run, in the shape of Caffe's log wherever no one sits in front of it.

On a terminal a line is printed as it is. Elsewhere every line starts as glog's do,

    I1121 01:02:03.123456 12345 sslnet] Iteration 100, lr = 0.01

so that the scripts which read Caffe's logs read these: they take the time from the first two words of every line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TextIO


class Log:
    """Writes the lines of a run: ``log("...")`` to stderr as Caffe does, ``log.result("...")`` to stdout."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.write: Callable[[str], None] = self.to_stderr
        """Where lines go; a live display puts itself in the way."""

    def __call__(self, text: str) -> None:
        for line in text.split("\n"):
            self.write(line if self.terminal else prefix() + line)

    def result(self, text: str = "") -> None:
        """Lines for who reads the outcome: plain, unless stdout is the very file that the log goes to."""
        stamped = not self.terminal and _same_file(sys.stdout, sys.stderr)
        for line in text.split("\n"):
            print(prefix() + line if stamped else line, file=sys.stdout, flush=True)

    @staticmethod
    def to_stderr(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


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
