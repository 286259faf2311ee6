"""What reaches a terminal: no character of a file's text that it would take as a command."""

from __future__ import annotations

import io
import sys

import pytest

from sslnet.errors import DefinitionError, Span, printable
from sslnet.report.tables import Table
from sslnet.terminal import Escaping, escaped_streams, raw

ODD = {
    "\x1b]0;owned\x07": r"\x1b]0;owned\x07",
    "\x9b31m": r"\x9b31m",
    "\x7f": r"\x7f",
    "a\u202eb": r"a\u202eb",
    "a\u2066b": r"a\u2066b",
    "a\u200bb": r"a\u200bb",
    "a\u2028b": r"a\u2028b",
    "a\rb": r"a\rb",
    "\udcff": r"\udcff",
    "\U000e0041": r"\U000e0041",
}
"""Control characters of ASCII and of ISO 8859, those that turn the direction of text, that take no room, that end a
line, a byte that is no UTF-8, a tag."""


@pytest.mark.parametrize("text", ODD)
def test_stream_escapes_what_is_not_printable(text: str) -> None:
    below = io.StringIO()
    assert Escaping(below).write(f"é {text}\t1\n") == len(text) + 5
    assert below.getvalue() == f"é {ODD[text]}\t1\n"


@pytest.mark.parametrize("text", ODD)
def test_printable_escapes_line_ends_too(text: str) -> None:
    assert printable(f"é{text}\n\t") == f"é{ODD[text]}\\n\\t"
    assert printable(printable(text)) == printable(text)


def test_streams_escape_while_a_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with escaped_streams():
        assert (raw(sys.stdout), raw(sys.stderr)) == before
        print("\x1b[31mred")
        print("\x1b[31mred", file=sys.stderr)
        sys.stdout.writelines(["\x1b", "\n"])
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("\\x1b[31mred\n\\x1b\n", "\\x1b[31mred\n")


def test_names_make_no_lines_of_their_own_in_a_table() -> None:
    table = Table("of a\nb", "layer", "n\nms")
    table.add("a\nIteration 100, loss = 0", "\x1b[31m")
    table.foot("x\ny", None)
    table.note("c\nd")
    assert [line.split("  ")[0] for line in table.text().splitlines()] == [
        "of a\\nb",
        "",
        "layer",
        "-" * 36,
        "a\\nIteration 100, loss = 0",
        "-" * 36,
        "x\\ny",
        "c\\nd",
    ]


def test_names_make_no_lines_of_their_own_in_an_error() -> None:
    span = Span("a\nb", 1, 3, 2, "\x1b[31m x")
    error = DefinitionError("no\nsuch \x1b[31m", span=span, layer="c\nd", hint="e\nf")
    assert str(error).split("\n") == [
        r"a\nb:1:3: error: no\nsuch \x1b[31m",
        "      \ufffd[31m x",
        "        ^^",
        r'  layer "c\nd"; e\nf',
    ]
