"""The text of a definition: read from a file as Caffe reads it, with places in it as spans."""

from __future__ import annotations

import os
from bisect import bisect_right
from functools import cached_property

from sslnet.errors import DefinitionError, Span
from sslnet.files import open_regular

LIMIT = 16 * 2**20  # bytes of a definition: beyond any net, small enough to parse in seconds
BAD_BYTE = "\ufffd"  # stands for bytes that are not UTF-8; they may be in comments, not elsewhere


class SourceText:
    """A text and its origin.

    path   name to show, or None for a text that came from no file
    text   lines end with one newline character, whatever the file had
    """

    def __init__(self, text: str, path: str | None = None) -> None:
        self.path = path
        self.text = text.replace("\r\n", "\n").replace("\r", " ")

    def span(self, start: int, end: int) -> Span:
        """The characters start .. end, or as many of them as are on the first line."""
        line = bisect_right(self._starts, start) - 1
        first = self._starts[line]
        last = self.text.find("\n", first)
        last = len(self.text) if last < 0 else last
        length = max(1, min(end, last) - start)
        text = self.text[first:last]
        if not text.isprintable():  # no control characters on a terminal
            text = "".join(letter if letter.isprintable() or letter == "\t" else BAD_BYTE for letter in text)
        return Span(self.path or "<text>", line + 1, start - first + 1, length, text)

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts


def read_source(path: str | os.PathLike[str]) -> SourceText:
    """The text of a file.

    raises DefinitionError: no such file, a folder, too large, binary
    """
    name = os.fspath(path)
    try:
        with open_regular(name, limit=1 << 62, error=DefinitionError) as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise DefinitionError(f"cannot be read: {error.strerror or error}", path=name) from error
    if len(data) > LIMIT:
        raise DefinitionError(f"is larger than {LIMIT // 2**20} MiB: not a definition", path=name)
    if b"\0" in data[:8192]:
        raise DefinitionError("is a binary file, not a text", path=name, hint="weights go into --weights")
    return SourceText(data.decode("utf-8-sig", errors="replace"), name)
