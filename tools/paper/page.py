"""Writes a table to a page, between its markers: ``<!-- table1 -->`` and ``<!-- /table1 -->``."""

from __future__ import annotations

from pathlib import Path

from paper.tables import markdown
from sslnet.errors import UsageError
from sslnet.files import atomic_write
from sslnet.report import print_table
from sslnet.report.tables import Table


def show(table: Table, name: str, page: Path | None) -> None:
    """Prints a table, or writes it to a page. raises UsageError if its markers are missing"""
    if page is None:
        print_table(table)
        return
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{page} cannot be read: {error.strerror}") from None
    atomic_write(page, with_table(text, page, name, markdown(table)).encode())
    print(f"written: {page}")


def with_table(text: str, page: Path, name: str, table: str) -> str:
    """The text with the table between its markers."""
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->\n")
    if not begin or not end:
        raise UsageError(f"{page}: <!-- {name} --> and <!-- /{name} --> must stand in it, each on a line of its own")
    return f"{before}{begin}\n{table}\n{end}{after}"
