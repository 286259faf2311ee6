"""The figures in a JSON file, one line for each net and each layer of AlexNet:

{"nets": {"lenet2": {...}, ...}, "alexnet": {"strong conv1 structure batch 1 threads 1": {...}, ...}}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sslnet.errors import UsageError
from sslnet.files import atomic_write

PARTS = ("nets", "alexnet")


class Record:
    """The figures so far; each new one is written at once."""

    def __init__(self, path: Path) -> None:
        """Reads a record; a missing file is an empty record. raises UsageError for a file that is not one"""
        self.path = path
        self.content: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
        if path.exists():
            self.content |= read(path)

    @property
    def nets(self) -> dict[str, Any]:
        return self.content["nets"]

    @property
    def alexnet(self) -> dict[str, Any]:
        return self.content["alexnet"]

    def add(self, part: str, name: str, figures: dict[str, Any]) -> None:
        self.content[part][name] = figures
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, text(self.content).encode())


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Reads a record. raises UsageError for a file that is not one"""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in PARTS):
        raise UsageError(f"{path} is not a file that tools/table1 and its siblings wrote")
    return content


def text(content: dict[str, dict[str, Any]]) -> str:
    parts = []
    for part in PARTS:
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(content[part].items()))
        parts.append(f"{json.dumps(part)}: {{\n{lines}\n}}")
    return "{" + ",\n".join(parts) + "}\n"
