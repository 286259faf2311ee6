"""Progress of a command over many records: a bar on a terminal, otherwise occasional lines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from sslnet.cli.log import terminal_console
from sslnet.terminal import escape_streams

Report = Callable[[int], None]
EVERY, SECONDS = 1000, 5.0
"""Minimum numbers of records and of seconds between two lines."""


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Report]:
    """A context with a function that reports the number of finished records on stderr.

    what   the records in the plural: images
    """
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal_console(), transient=True, refresh_per_second=5) as bar:
        escape_streams()  # the bar has put itself in front of them
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(what: str) -> Report:
    told, when = 0, time.monotonic()

    def report(done: int) -> None:
        nonlocal told, when
        if done // EVERY > told // EVERY and time.monotonic() >= when + SECONDS:
            print(f"Processed {done} {what}.", file=sys.stderr, flush=True)
            told, when = done, time.monotonic()

    return report
