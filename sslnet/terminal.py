"""Safe text for a terminal: names come from files and may contain characters that control the terminal.

While a command runs, stdout and stderr are ``Escaping`` streams: whatever is written to them, a character that cannot be
printed (control characters, those that change the direction of text, ...) comes out as an escape, ``\\x1b``. Only what
draws for a terminal itself (rich) writes to the stream below, ``raw(stream)``.

Line ends pass, for they are also ours. Where a name stands within a line it goes through ``sslnet.errors.printable``,
which escapes these as well: a name must not look like a line of its own.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from sslnet.errors import printable


class Escaping:
    """A text stream that writes what is not printable as escapes; in all else it is the stream below."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(printable(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def raw(stream: Any) -> Any:
    """The stream below, for what sends commands to a terminal on purpose and escapes the texts itself."""
    return stream.stream if isinstance(stream, Escaping) else stream


def escape_streams() -> None:
    """Makes stdout and stderr escaping ones, where they are not; a display that has put itself in front of them too."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Escaping):
            setattr(sys, name, Escaping(stream))


@contextlib.contextmanager
def escaped_streams() -> Iterator[None]:
    """stdout and stderr escape while the block runs; afterwards they are what they were."""
    before = sys.stdout, sys.stderr
    escape_streams()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
