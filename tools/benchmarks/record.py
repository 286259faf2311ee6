"""The record of measurements, a JSON file: the machine, and the rows of each section, for each instruction set.

    {"AVX-512": {"convs": {"machine": {...}, "load": 0.1, "rows": [...]}, ...}, "AVX2": {...}}

Written after every row, through a temporary file: an interrupt leaves all that was measured.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.tables import Row, milliseconds
from benchmarks.turns import OURS

CHANGE = 0.05
"""Relative changes smaller than this count as noise, whatever the quartiles say."""

Key = tuple[str, str, int]


class Record:
    """The sections measured so far; with a path also on disk, where earlier ones are kept until they are measured anew."""

    def __init__(self, path: Path | None, machine: dict[str, Any]) -> None:
        self.path = path
        self.machine = machine
        self.content: dict[str, dict[str, Any]] = load(path) if path is not None and path.exists() else {}

    @property
    def sections(self) -> dict[str, Any]:
        """The sections of the instruction set in use."""
        return self.content.setdefault(self.machine["vector"], {})

    def start(self, section: str) -> None:
        """What was there of a section goes when its first new row comes."""
        self._new = {"machine": self.machine, "load": round(os.getloadavg()[0], 2), "rows": []}
        self._section = section

    def add(self, row: Row) -> None:
        self._new["rows"].append(row)
        self.sections[self._section] = self._new
        self.save()

    def rows(self, section: str) -> list[Row]:
        return self.sections.get(section, {}).get("rows", [])

    def save(self) -> None:
        if self.path is not None:
            write_text(self.path, _text(self.content))


def _text(content: dict[str, dict[str, Any]]) -> str:
    """JSON text with one row on each line, numbers with five digits."""
    units = []
    for unit, sections in content.items():
        parts = []
        for name, section in sections.items():
            rows = ",\n".join(json.dumps(_rounded(row)) for row in section["rows"])
            head = f'"machine": {json.dumps(section["machine"])}, "load": {section["load"]}'
            parts.append(f'{json.dumps(name)}: {{{head}, "rows": [\n{rows}\n]}}')
        units.append(f"{json.dumps(unit)}: {{\n{(',' + chr(10)).join(parts)}\n}}")
    return "{" + ",\n".join(units) + "}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Raises SystemExit, with a message, for a file that is no record."""
    try:
        content = json.loads(path.read_text())
        for sections in content.values():
            for section in sections.values():
                _ = section["machine"], section["rows"]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise SystemExit(f"{path}: not a file that tools/bench wrote ({type(error).__name__}: {error})") from None
    return content


def write_text(path: Path, text: str) -> None:
    """Writes the file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# -- what changed --------------------------------------------------------------------------------------------------------


def compare(old: list[Row], new: list[Row]) -> list[str]:
    """A line for every row that both have: new time by old, and whether that is more than noise.

    It is more when the quartiles of both do not meet and the medians lie CHANGE apart. Where there is another contestant,
    what counts is our time by its time: a machine that runs faster today runs faster for both.
    """
    before = {key(row): row for row in old}
    lines = []
    for row in new:
        if key(row) not in before:
            continue
        was = before[key(row)]
        times = was["times"][OURS]["median"], row["times"][OURS]["median"]
        change, verdict = times[1] / times[0], _verdict(*map(_range, (was, row)))
        beside = (
            f"  {was['ratio']:.2f} -> {row['ratio']:.2f} of {row['against']}"
            if {"ratio"} <= was.keys() & row.keys()
            else ""
        )
        lines.append(
            f"{row['what']:24} {row['part']:32} {row['threads']:2}  {milliseconds(times[0]):>8} -> "
            f"{milliseconds(times[1]):>8} ms  {change:5.2f}  {verdict:7}{beside}".rstrip()
        )
    return lines


def key(row: Row) -> Key:
    return row["what"], row["part"], row["threads"]


def _range(row: Row) -> tuple[float, float, float]:
    """Low quartile, median, high quartile of the ratio, or of our time where there is nobody else."""
    if "ratio" in row:
        return row["ratio_low"], row["ratio"], row["ratio_high"]
    ours = row["times"][OURS]
    return ours["low"], ours["median"], ours["high"]


def _verdict(old: tuple[float, float, float], new: tuple[float, float, float]) -> str:
    if new[2] < old[0] and new[1] < old[1] * (1 - CHANGE):
        return "faster"
    if new[0] > old[2] and new[1] > old[1] * (1 + CHANGE):
        return "SLOWER"
    return "same"
