"""Tables: made once, shown with lines and colours on a terminal and as plain aligned text anywhere else.

    table = Table("Sparsity", "layer", "filters", "parameters")   a title, the headings of the columns
    table.add("conv1", "5 of 20", "125 of 500")                   a row; cells are text, or anything for str()
    table.foot("total", "", "125 of 500")                         rows below a line at the end
    table.note("one channel of conv2 is never read")              a sentence below the table
    print_table(table)                                            to stdout; ``file=`` for another stream

The first column is aligned to the left, all others to the right; ``left={0, 3}`` selects other columns for the left.
A heading may have several lines ("forward\nms"), the last of which is directly above the cells.
``drop=[2, 1]`` selects columns that a narrow terminal may omit, the first of them first; text is never wrapped or cut. A
None cell is shown as a dash, an unprintable character as an escape. ``table.text()`` is the plain form,
``table.styled()`` the renderable for rich (for a Live or a Group). ``sslnet.report.units`` formats numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import IO, Any

from sslnet.errors import printable
from sslnet.report.units import DASH
from sslnet.terminal import raw


class Table:
    """A title, headings, rows, foot rows and notes, all of them text.

    title   shown above; may be empty
    heads   one for each column
    left    indices of the columns aligned to the left
    drop    indices of the columns that a narrow terminal omits, in this order
    """

    def __init__(self, title: str, *heads: str, left: Iterable[int] = (0,), drop: Sequence[int] = ()) -> None:
        self.title = printable(title)
        self.heads = [printable(head, keep="\n") for head in heads]
        self.left = frozenset(left)
        self.drop = list(drop)
        self.rows: list[list[str]] = []
        self.feet: list[list[str]] = []
        self.notes: list[str] = []

    def add(self, *cells: Any) -> None:
        self.rows.append(self._cells(cells))

    def foot(self, *cells: Any) -> None:
        self.feet.append(self._cells(cells))

    def note(self, sentence: str) -> None:
        self.notes.append(printable(sentence))

    def _cells(self, cells: tuple[Any, ...]) -> list[str]:
        if len(cells) != len(self.heads):
            raise ValueError(f"{len(cells)} cells for the {len(self.heads)} columns {', '.join(self.heads)}")
        return [DASH if cell is None else printable(str(cell)) for cell in cells]

    def _head_lines(self) -> list[list[str]]:
        """The headings line by line, aligned at the bottom."""
        heads = [head.split("\n") for head in self.heads]
        height = max(map(len, heads))
        return [[[*[""] * (height - len(head)), *head][i] for head in heads] for i in range(height)]

    def text(self, width: int | None = None) -> str:
        """Plain aligned text, every line ended; independent of the stream, or without columns to fit a width.

        width   maximum characters; if no form is as narrow, the whole table
        """
        for count in range(len(self.drop) + 1) if width is not None else ():
            lines = self._lines(without=self.drop[:count])
            if width is not None and max(map(len, lines)) <= width:
                break
        else:
            lines = self._lines()
        return "".join(f"{line}\n" for line in ([self.title] if self.title else []) + lines + self.notes)

    def _lines(self, without: Collection[int] = ()) -> list[str]:
        shown = [i for i in range(len(self.heads)) if i not in without]
        heads = self._head_lines()
        widths = {i: max(len(row[i]) for row in (*heads, *self.rows, *self.feet)) for i in shown}
        rule = "-" * (sum(widths.values()) + 2 * (len(shown) - 1))

        def line(row: list[str]) -> str:
            return "  ".join(
                row[i].ljust(widths[i]) if i in self.left else row[i].rjust(widths[i]) for i in shown
            ).rstrip()

        lines = [*map(line, heads), rule, *map(line, self.rows)]
        return [*lines, rule, *map(line, self.feet)] if self.feet else lines

    def styled(self, without: Collection[int] = ()) -> Any:
        """The table for rich, without some of its columns."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        heads = list(zip(*self._head_lines()))
        shown = [i for i in range(len(self.heads)) if i not in without]
        table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for i in shown:
            table.add_column(Text("\n".join(heads[i])), justify="left" if i in self.left else "right", no_wrap=True)
        for number, row in enumerate(self.rows):
            table.add_row(*(Text(row[i]) for i in shown), end_section=bool(self.feet) and number == len(self.rows) - 1)
        for row in self.feet:
            table.add_row(*(Text(row[i], style="bold") for i in shown))
        return table


def print_table(table: Table, file: IO[str] | None = None) -> None:
    """Prints the table to a stream: styled for a terminal, as plain text for a file or a pipe."""
    stream = sys.stdout if file is None else file
    if stream.isatty():
        _print_styled(table, stream)
    else:
        stream.write(table.text())
    stream.flush()


def _print_styled(table: Table, stream: IO[str]) -> None:
    """Prints the widest form that fits; the plain one, which the terminal wraps, if none does."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=raw(stream))
    endless = console.options.update(width=10_000)
    for count in range(len(table.drop) + 1):
        styled = table.styled(without=table.drop[:count])
        if console.measure(styled, options=endless).maximum <= console.width:
            break
    else:
        stream.write(table.text())
        return
    if table.title:
        console.print(Text(table.title, style="bold"))
    console.print(styled)
    for note in table.notes:
        console.print(Text(note, style="dim"))
