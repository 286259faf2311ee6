"""The live display of a run on a terminal: a progress bar, the main values below it, log lines above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sslnet.cli.log import terminal_console
from sslnet.errors import printable
from sslnet.terminal import escape_streams

if TYPE_CHECKING:
    from rich.progress import Progress

    from sslnet.cli.log import RunLog

FIELDS = ("loss", "lr", "test error", "filters")
"""The values below the bar, in this order; a narrow terminal cuts them off."""


class Live:
    """A bar from ``first`` to ``last`` iteration on stderr. While it is open, lines of the log appear above it."""

    def __init__(self, log: RunLog, title: str, first: int, last: int) -> None:
        from rich.console import Group
        from rich.live import Live as RichLive

        self.log = log
        self.values: dict[str, str] = {}
        self.text = ""
        self._progress = make_progress()
        self._task = self._progress.add_task(printable(title), total=last, completed=first)
        self._live = RichLive(
            get_renderable=lambda: Group(self._progress, self._details()),
            console=self._progress.console,
            transient=True,
            refresh_per_second=5,
        )

    def open(self) -> None:
        self._live.start()
        escape_streams()  # it has put itself in front of them
        self.log.write = self._above

    def close(self) -> None:
        """Removes the bar; a second call has no effect."""
        self._live.stop()
        self.log.write = self.log.to_stderr

    def show(self, iteration: int, **values: str) -> None:
        """Updates the bar and the values below it (names of FIELDS, with underscores for spaces)."""
        self.values.update({name.replace("_", " "): value for name, value in values.items()})
        self._progress.update(self._task, completed=iteration)

    def tell(self, text: str) -> None:
        """Shows a text instead of the values below the bar, until the text is empty."""
        self.text = text

    def _details(self) -> Any:
        from rich.text import Text

        if self.text:
            return Text(printable(self.text), no_wrap=True, overflow="ellipsis")
        known = "  ".join(f"{name} {self.values[name]}" for name in FIELDS if name in self.values)
        return Text(printable(known), no_wrap=True, overflow="ellipsis")

    def _above(self, line: str) -> None:
        self._progress.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def make_progress() -> Progress:
    """The bar of rich: title, bar, iterations, time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=terminal_console(),
    )
