"""The page of figures: the goals and the table of each section as Markdown, between two markers; the rest is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.goals import columns, goals_of, mean_ratio, threads_of
from benchmarks.machine import describe
from benchmarks.record import Record, write_text
from benchmarks.sections import SECTIONS
from benchmarks.tables import markdown

BEGIN = "<!-- measured: tools/bench goals --write writes what stands from here -->"
END = "<!-- to here -->"


def write(path: Path, record: Record) -> None:
    """The page with what was measured put between the markers; a new page where there is none.

    raises SystemExit for a page without the markers
    """
    text = path.read_text() if path.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path}: the lines\n{BEGIN}\n{END}\nmust stand in it, around what was measured")
    write_text(path, f"{before}{BEGIN}\n\n{measured(record.content)}\n{END}{after}")


def measured(content: dict[str, dict[str, Any]]) -> str:
    """The contents of the JSON file, for each instruction set."""
    return "\n".join(_of_unit(unit, sections) for unit, sections in content.items() if sections)


def _of_unit(unit: str, sections: dict[str, Any]) -> str:
    found = [goal for goal in goals_of(sections) if goal.figures]
    table = markdown(columns(threads_of(found)), [{"goal": goal} for goal in found])
    machines = {describe(section["machine"]): section["load"] for section in sections.values()}
    where = "\n".join(f"Measured on {text}.  " for text in machines)
    parts = [f"## Measured with {unit}\n\n{where}\n\n{table}"]
    for name, section in SECTIONS.items():
        rows = [row for row in sections.get(name, {}).get("rows", []) if "layer" not in row]
        if rows:
            load = sections[name]["load"]
            mean = mean_ratio(rows)
            tail = f"\nGeometric mean of the ratios: {mean:.2f}. " if mean == mean else "\n"
            parts.append(
                f"### {section.HELP.rstrip('.')}, {unit}\n\n{markdown(section.COLUMNS, rows)}{tail}"
                f"Load of the machine at the start: {load:g}.\n"
            )
    return "\n".join(parts)
