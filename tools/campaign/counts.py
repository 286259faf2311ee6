"""The outcome of one target, a row of the table: the number of runs and the failures."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = {
    "broken": "broken snapshots",
    "differing": "differing resumes",
    "signals": "ended by signals",
    "hangs": "hangs",
    "tracebacks": "tracebacks",
    "memory": "beyond 2 GiB",
    "stray": "stray files",
    "other": "other",
}
"""Kind of failure -> its column. "other": a wrong exit code, control characters, wrong values, leaks."""

MOST_FINDINGS = 100
"""Maximum number of findings of a target that are described; further ones are only counted."""


@dataclass
class Count:
    """The counts of a target. runs: kills, inputs or runs, as the part's UNIT states. found: number of each kind of KINDS.

    findings   one line for each finding, at most MOST_FINDINGS
    skipped    reason why nothing was run, if so
    """

    part: str
    target: str
    unit: str = "runs"
    runs: int = 0
    seconds: float = 0.0
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    findings: list[str] = field(default_factory=list)
    skipped: str = ""
    seeds: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.part}/{self.target}"

    @property
    def failed(self) -> bool:
        return any(self.found.values())

    def find(self, kind: str, what: str) -> None:
        """Adds a finding of this kind; `what` describes it in one line."""
        self.found[kind] += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(f"{kind}: {' '.join(what.split())}")

    def kinds(self) -> list[str]:
        """The findings with their numbers; findings that differ only in numbers count as one."""
        same: dict[str, list[str]] = {}
        for finding in self.findings:
            same.setdefault(re.sub(r"0x\w+|\d+|'[^']*'|\([^)]*\)", "", finding), []).append(finding)
        return [first if not more else f"{first} and {len(more)} like it" for first, *more in same.values()]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Count:
        """Creates counts from ``as_dict``. raises KeyError, TypeError for other values"""
        count = cls(**content)
        count.found = {kind: int(content["found"].get(kind, 0)) for kind in KINDS}
        return count

    def plus(self, other: Count) -> Count:
        """The sum of two outcomes, as from runs with different seeds."""
        return Count(
            self.part,
            self.target,
            other.unit,
            self.runs + other.runs,
            self.seconds + other.seconds,
            {kind: self.found[kind] + other.found[kind] for kind in KINDS},
            (self.findings + other.findings)[:MOST_FINDINGS],
            other.skipped if not self.runs else "",
            sorted({*self.seeds, *other.seeds}),
        )


def table(counts: list[Count]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table: one row per target, a sum for a part with several targets, numbers as text."""
    heads = ["part, target", "done", "minutes", *KINDS.values()]
    rows = []
    for part in dict.fromkeys(count.part for count in counts):
        own = [count for count in counts if count.part == part]
        rows += [_cells(count.name, count) for count in own]
        if len(own) > 1:
            total = own[0]
            for count in own[1:]:
                total = total.plus(count)
            rows.append(_cells(f"{part}, all", total))
    return heads, rows


def _cells(name: str, count: Count) -> list[str]:
    if count.skipped and not count.runs:
        return [name, "skipped", *[""] * (1 + len(KINDS))]
    numbers = [count.found[kind] for kind in KINDS]
    return [name, f"{count.runs:,} {count.unit}", f"{count.seconds / 60:.1f}", *map(str, numbers)]


def text(counts: list[Count]) -> str:
    """The table for a terminal; headings of several words have several lines."""
    heads, rows = table(counts)
    words = [head.split(" ") if column else [head] for column, head in enumerate(heads)]
    height = max(map(len, words))
    lines = [[([""] * (height - len(word)) + word)[line] for word in words] for line in range(height)]
    widths = [max(len(row[column]) for row in [*lines, *rows]) for column in range(len(heads))]

    def line(cells: list[str]) -> str:
        first, *rest = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths))
        )
        return "  ".join([first, *rest]).rstrip()

    head = [line(cells) for cells in lines]
    reasons = [f"{count.name}: {count.skipped}" for count in counts if count.skipped]
    return "\n".join([*head, "-" * (sum(widths) + 2 * len(widths) - 2), *map(line, rows), *reasons])


def markdown(counts: list[Count]) -> str:
    """The table as Markdown."""
    heads, rows = table(counts)
    lines = [heads, [":--", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
