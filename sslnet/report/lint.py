"""What ``sslnet lint`` prints: the problems of a file, or a table of many files with the reasons that stop them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sslnet.errors import SslnetError, printable
from sslnet.report.tables import Table
from sslnet.solver.file_check import FileCheck

MOST_LINES = 12
"""Line numbers that a repeated problem lists."""


def problem_texts(check: FileCheck) -> list[str]:
    """The problems as errors with their places; one that is repeated stands there once, with the lines of the others."""
    groups: dict[tuple[str, str | None], list[SslnetError]] = {}
    for problem in check.problems:
        key = problem.message, problem.path
        groups.setdefault(key, []).append(problem)
    texts = []
    for problems in groups.values():
        text = str(problems[0])
        lines = [str(problem.line) for problem in problems[1:] if problem.line is not None]
        if len(problems) > 1:
            listed = ", ".join(lines[:MOST_LINES]) + (", ..." if len(lines) > MOST_LINES else "")
            text += f"\n  and {len(problems) - 1} more of the kind" + (f": lines {listed}" if lines else "")
        texts.append(text)
    return texts


def verdict(check: FileCheck) -> str:
    """The last line about a file: "net.prototxt: runs (TRAIN 24 layers, TEST 20 layers)"."""
    path = printable(check.path)
    if check.problems:
        return f"{path}: {count(len(check.problems), 'problem')}"
    if check.kind == "net":
        phases = ", ".join(f"{phase} {count(number, 'layer')}" for phase, number in check.layers.items())
        return f"{path}: runs ({phases})"
    if check.kind == "solver":
        return f"{path}: runs"
    return f"{path}: reads ({count(len(check.params), 'layer')} with weights)"


def count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def reason(problem: SslnetError) -> str:
    """The kind of a problem, without what is particular to one place: numbers, names of layers and blobs."""
    if problem.message.startswith(("unknown layer type", "unknown lr_policy")) or "has no field" in problem.message:
        return problem.message
    return re.sub(r"-?\d[\d.]*", "N", re.sub(r'"[^"]*"', '"..."', problem.message))


def tables(checks: Sequence[FileCheck]) -> list[Table]:
    """A table of the files, then, where some are stopped, one of the reasons."""
    accepted = sum(check.accepted for check in checks)
    files = Table(f"{accepted} of {len(checks)} files run", "file", "kind", "result", left=(0, 1, 2))
    for check in checks:
        first = (
            printable(reason(check.problems[0])) if check.problems else "runs" if check.kind != "weights" else "reads"
        )
        more = f" (and {len(check.problems) - 1} more)" if len(check.problems) > 1 else ""
        files.add(check.path, check.kind, first[:100] + more)
    reasons = Counter(text for check in checks for text in {reason(problem) for problem in check.problems})
    if not reasons:
        return [files]
    stopped = Table("What stops the others", "reason", "files", left=(0,))
    for text, number in reasons.most_common():
        stopped.add(text[:110], number)
    return [files, stopped]


def as_json(checks: Sequence[FileCheck]) -> dict[str, Any]:
    """The checks for a program."""
    return {
        "accepted": sum(check.accepted for check in checks),
        "files": [
            {
                "path": check.path,
                "kind": check.kind,
                "accepted": check.accepted,
                "problems": [
                    {
                        "path": problem.path,
                        "line": problem.line,
                        "column": problem.column,
                        "layer": problem.layer,
                        "message": problem.message,
                        "hint": problem.hint,
                    }
                    for problem in check.problems
                ],
                "notes": check.notes,
                "layers": check.layers,
                "shapes": check.shapes,
            }
            for check in checks
        ],
    }
