"""Writes the table of docs/reliability.md between two markers; the rest of the page is unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.record import write_text

from campaign import counts
from campaign.counts import Count
from campaign.record import Record
from campaign.seeds import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- counted: tools/torture --page writes what stands from here -->"
END = "<!-- to here -->"


def write(path: Path, record: Record) -> None:
    """Writes the record's table between the markers. raises SystemExit for a page without them"""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path}: the lines\n{BEGIN}\n{END}\nmust stand in it, around the table")
    write_text(path, f"{before}{BEGIN}\n\n{counted(record.head, record.rows())}\n\n{END}{after}")


def counted(head: dict[str, Any], rows: list[Count]) -> str:
    """The table, and a description of the runs and the machine."""
    machine = head["machine"]
    minutes = sum(count.seconds for count in rows) / 60
    seeds = ", ".join(map(str, sorted({seed for count in rows for seed in count.seeds})))
    where = f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['vector']}; python {machine['python']}, numpy {machine['numpy']}"
    skipped = [f"{count.name} was skipped: {count.skipped}." for count in rows if count.skipped]
    return "\n\n".join([
        f"sslnet {head['version']} (sources {head['sources']}), seed {seeds}, {minutes:.0f} minutes of all jobs together, on {where}.",
        counts.markdown(rows), *skipped,
    ])  # fmt: skip
