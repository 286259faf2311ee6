"""The JSON file of the counts: sources, machine, and one row per target.

    {"version": "0.1.0", "sources": "1f...", "machine": {...}, "rows": [{"part": "kills", "target": ...}, ...]}

It is written every few seconds, through a temporary file. A later run of the same version of sslnet adds to the rows: counts
with another seed are added, counts with the seed of an earlier row replace it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import cpu_name
from benchmarks.record import write_text

from campaign.counts import Count
from campaign.seeds import ROOT


def sources() -> str:
    """A digest of the code of sslnet: results of different code are not added."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "sslnet").rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def machine() -> dict[str, Any]:
    """The properties of the machine that the figures depend on."""
    import platform

    import numpy

    from sslnet.kernels.runtime.cores import usable_cores
    from sslnet.kernels.simd.vector import vector_unit

    return {
        "cpu": cpu_name(),
        "cpus": usable_cores(),
        "vector": vector_unit().name,
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
    }


class Record:
    """The rows of earlier runs and of this one; without a path nothing is read or written.

    raises SystemExit for a file that is not a record
    """

    def __init__(self, path: Path | None) -> None:
        from sslnet import __version__

        self.path = path
        self.head = {"version": __version__, "sources": sources(), "machine": machine()}
        content = load(path) if path is not None and path.exists() else {}
        same = content.get("sources") == self.head["sources"]
        self.old: list[Count] = [Count.from_dict(row) for row in content["rows"]] if same else []
        self.new: dict[str, Count] = {}

    def put(self, count: Count) -> None:
        """Stores the current counts of a target in this run."""
        self.new[count.name] = count

    def rows(self) -> list[Count]:
        """The sums of the rows of earlier runs and of this one."""
        rows = {count.name: count for count in self.old}
        for name, count in self.new.items():
            old = rows.get(name)
            rows[name] = old.plus(count) if old is not None and not {*old.seeds} & {*count.seeds} else count
        return list(rows.values())

    def save(self) -> None:
        if self.path is not None:
            rows = ",\n".join(json.dumps(_rounded(count.as_dict())) for count in self.rows())
            head = "".join(f"{json.dumps(name)}: {json.dumps(value)},\n" for name, value in self.head.items())
            write_text(self.path, f'{{{head}"rows": [\n{rows}\n]}}\n')


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"seconds": round(row["seconds"], 1)}


def load(path: Path) -> dict[str, Any]:
    """Reads a record; raises SystemExit, with a message, for a file that is not one."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        _ = content["sources"], content["machine"], [Count.from_dict(row) for row in content["rows"]]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise SystemExit(f"{path}: not a file that tools/torture wrote ({type(error).__name__}: {error})") from None
    return content
