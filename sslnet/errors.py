"""The errors of sslnet: they have fields, are worded here, and are printed by the command line alone.

An error has its place (``path``, ``line``, ``column``, ``layer``) and a suggestion (``hint``);
``str(error)`` combines them:

    bad_lenet.prototxt:5:23: error: ConvolutionParameter has no field "num_ouput"
          convolution_param { num_ouput: 20 kernel_size: 5 }
                              ^^^^^^^^^
      layer "conv1"; did you mean "num_output"?
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNPRINTABLE = "\ufffd"
"""The substitute for a character of a source line that cannot be printed; as wide as it, so that carets fit."""


@dataclass(frozen=True)
class Span:
    """A place in a text file: 1-based line and column, length in characters, and the source line itself."""

    path: str
    line: int
    column: int
    length: int = 1
    text: str = ""


class SslnetError(Exception):
    """Base class of all errors. ``exit_code`` 2: the input is wrong; 1: the run failed."""

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        span: Span | None = None,
        path: str | None = None,
        layer: str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.span = span
        self.path = span.path if span is not None else path
        self.line = span.line if span is not None else None
        self.column = span.column if span is not None else None
        self.layer = layer
        self.hint = hint

    def __str__(self) -> str:
        message = printable(self.message)
        if self.span is not None:
            head = f"{printable(self.span.path)}:{self.span.line}:{self.span.column}: error: {message}"
        elif self.path is not None:
            head = f"{printable(self.path)}: error: {message}"
        else:
            head = f"error: {message}"
        lines = [head]
        if self.span is not None and self.span.text:
            lines += _excerpt(self.span)
        layer = f'layer "{printable(self.layer)}"' if self.layer else ""
        tail = "; ".join(part for part in (layer, printable(self.hint)) if part)
        if tail:
            lines.append("  " + tail)
        return "\n".join(lines)


class DefinitionError(SslnetError):
    """A wrong prototxt: syntax, unknown field or type, a value out of range, an incomplete graph."""


class ShapeError(DefinitionError):
    """Shapes that do not fit each other; the message prints the condition and both values."""


class WeightsError(SslnetError):
    """A .caffemodel, .solverstate or mean file that cannot be read or does not fit the net."""


class DataError(SslnetError):
    """A database, list or image that is missing, cut off or has wrong contents."""


class UsageError(SslnetError):
    """A command line or call that cannot be carried out as given."""


class RunError(SslnetError):
    """The run itself failed: the loss is not finite, a label is out of range, memory or disk ran out."""

    exit_code = 1


class BatchError(RunError):
    """A batch that the net cannot use: a label out of range, numbers that are not finite."""


class NotFiniteError(RunError):
    """The loss or a parameter is not finite: training has diverged, and the weights are not worth a snapshot."""


class ErrorList(DefinitionError):
    """Several semantic errors of one definition, reported together."""

    def __init__(self, errors: list[SslnetError]) -> None:
        first = errors[0]
        super().__init__(first.message, span=first.span, path=first.path, layer=first.layer, hint=first.hint)
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def raise_errors(errors: Sequence[SslnetError]) -> None:
    """Raises the only error, or an ErrorList of several in the order of their places; does nothing without any."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        place = (lambda error: (error.line or 0, error.column or 0)) if len({e.path for e in errors}) == 1 else None
        raise ErrorList(sorted(errors, key=place) if place else list(errors))


def printable(text: str, keep: str = "") -> str:
    """The text with escapes (``\\x1b``, ``\\n``, ``\\u202e``) for what cannot be printed: a terminal takes some characters as
    commands, and a line end in a name would make a line of its own.

    keep   characters that stay as they are
    """
    if text.isprintable():
        return text

    def shown(match: re.Match[str]) -> str:
        letter = match[0]
        return letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()

    return re.sub("[^ -~]", shown, text)


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """The hint `did you mean "..."?` for the nearest candidate (same letters in another case first, then one that goes
    on where the word ends, then by edit distance), or an empty string when none is near."""
    names = list(candidates)
    for name in names:
        if name.lower() == word.lower() and name != word:
            return f'did you mean "{name}"?'
    for name in names:
        if len(word) > 3 and name.startswith(f"{word}_"):
            return f'did you mean "{name}"?'
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    return f'did you mean "{near[0]}"?' if near else ""


def _excerpt(span: Span, width: int = 110) -> list[str]:
    """The source line, cut to a window around the span when it is long, with carets under the span."""
    text = "".join(letter if letter.isprintable() else UNPRINTABLE for letter in span.text.replace("\t", " "))
    start = span.column - 1
    left = 0
    if len(text) > width:
        left = max(0, min(start - width // 3, len(text) - width))
        text = ("..." if left else "") + text[left : left + width]
        start = start - left + (3 if left else 0)
    carets = max(1, min(span.length, len(text) - start)) if start < len(text) else 1
    stripped = len(text) - len(text.lstrip(" "))
    shift = min(stripped, start)
    return ["      " + text[shift:].rstrip(), "      " + " " * (start - shift) + "^" * carets]
