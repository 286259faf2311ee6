"""The allowed reactions of sslnet to bad input: exit code 0, 1 or 2, or an SslnetError, with a message that a terminal
can print."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import traceback
from collections.abc import Callable

CODES = (0, 1, 2)
FAULTS = ("this is a bug in sslnet", "Traceback (most recent call last)")
OUT_OF_MEMORY = re.compile(r"out of memory|unable to allocate|cannot allocate|MemoryError|bad_alloc", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that a terminal would interpret as commands; line ends and tabs are allowed."""
MOST_TEXT = 200_000
"""Maximum number of characters that a command may print about one file."""


class Bad(Exception):
    """A failure. kind: one of counts.KINDS; details: for example a traceback."""

    def __init__(self, kind: str, what: str, details: str = "") -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.details = details or what


def command(arguments: list[str], *, sized: bool = False) -> None:
    """Runs `sslnet ARGUMENTS` in this process. raises Bad

    sized   whether the input itself determines the memory: then an out-of-memory error is allowed
    """
    code, text = captured(arguments)
    if "this is a bug in sslnet" in text:
        again = captured([*arguments, "--debug"])[1]
        details = again if FAULTS[1] in again else text
        raise Bad("tracebacks", f"sslnet {arguments[0]}: {place(details) or text.strip().splitlines()[0]}", details)
    if code not in CODES:
        raise Bad("other", f"sslnet {arguments[0]}: exit code {code}", text)
    if code and not text.strip():
        raise Bad("other", f"sslnet {arguments[0]}: exit code {code} without a word")
    check_text(text, f"sslnet {arguments[0]}", sized)


def call(function: Callable[[], object], *, sized: bool = False) -> None:
    """Calls a function of sslnet. raises Bad for any exception but an SslnetError"""
    from sslnet.errors import SslnetError

    try:
        function()
    except SslnetError as error:
        check_text(str(error), type(error).__name__, sized)
    except MemoryError as error:
        if not sized:
            raise Bad("memory", f"MemoryError: {error}", traceback.format_exc()) from None
    except Exception as error:
        details = traceback.format_exc()
        raise Bad("tracebacks", f"{place(details)}: {type(error).__name__}: {str(error)[:150]}", details) from None


def check_text(text: str, who: str, sized: bool) -> None:
    """Checks a message; raises Bad if it is not readable text."""
    if not sized and OUT_OF_MEMORY.search(text):
        raise Bad("memory", f"{who}: {text.strip()[:200]}", text)
    control = CONTROL.search(text)
    if control:
        around = text[max(0, control.start() - 60) : control.end() + 30]
        raise Bad("other", f"{who}: control character in the output: {around!r}", repr(text))
    if len(text) > MOST_TEXT:
        raise Bad("other", f"{who}: {len(text)} characters of output", text[:2000])


def captured(arguments: list[str]) -> tuple[int, str]:
    """Exit code and output of a command."""
    from sslnet.cli import main

    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main(arguments)
    except BaseException as error:  # main answers for all
        details = traceback.format_exc()
        raise Bad(
            "tracebacks", f"sslnet {arguments[0]} let {type(error).__name__} through at {place(details)}", details
        ) from None
    out.seek(0)
    return code, out.read()


def place(details: str) -> str:
    """The last place of a traceback in sslnet: "sources/hdf5.py:12 read KeyError"; empty without one."""
    frames = re.findall(r'File ".*?/sslnet/((?!cli/__init__)[\w/]+\.py)", line (\d+), in (\S+)', details)
    errors = re.findall(r"^((?:\w+\.)*[A-Z]\w+)(?:: |$)", details, re.MULTILINE)
    if not frames:
        return ""
    file, line, function = frames[-1]
    return f"{file}:{line} {function}" + (f" {errors[-1]}" if errors else "")


def died(text: str) -> str:
    """The place of a process at the time of its fatal signal, from its stderr; else the last lines of that."""
    frames = re.findall(r'File ".*?/sslnet/([\w/]+\.py)", line (\d+) in (\S+)', text)
    if frames:
        return " ".join((f"{frames[0][0]}:{frames[0][1]}", frames[0][2]))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = next((line for line in lines if line.startswith("File ")), "")  # of what was running
    return first or " ".join(lines[-2:])[:200]


def message(text: str) -> str:
    """The line of a command's output with the error; the last line if there is none."""
    lines = text.strip().splitlines() or [""]
    errors = [line for line in lines if "error: " in line or "Error: " in line]
    return (errors[0] if errors else lines[-1]).strip()[:250]


def show(error: Bad) -> None:
    """Prints the outcome, for the command that repeats one input."""
    print(f"{error.kind}: {error.what}\n\n{error.details}", file=sys.stderr)
