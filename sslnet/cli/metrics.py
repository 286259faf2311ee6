"""``metrics.jsonl``: the measurements of a run, one JSON object per line, beside its snapshots.

The first line describes the run (``"type": "run"``: seed, versions, the solver as text). A run that resumes continues
the file of its snapshots. It removes the lines from the resumed iteration on, which will be measured again, and the
incomplete line of a killed run. A new run renames an older file to metrics.1.jsonl, metrics.2.jsonl, ...
"""

from __future__ import annotations

import contextlib
import os
import platform
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from sslnet.errors import DataError
from sslnet.files import MOST_BYTES, atomic_write, read_text
from sslnet.json_file import fields, parse_json, whole
from sslnet.report import dump_json

NAME = "metrics.jsonl"


class Metrics:
    """The open file of one run: ``write`` appends one object and flushes it."""

    def __init__(self, path: Path, header: dict[str, Any], resumed: int | None = None) -> None:
        """
        path     the file; its folder is there
        header   fields of the run's line; "snapshot_prefix" identifies the run of an existing file
        resumed  the iteration a resumed run starts at; None for a new run
        """
        self.path = path
        kept = None if resumed is None else lines_before(path, resumed, header["snapshot_prefix"])
        self._file: TextIO
        if kept is None:
            self._file = _new_file(path)
        else:
            atomic_write(path, "".join(kept).encode(), follow=False)
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        try:
            self.write("run" if kept is None else "resume", iteration=resumed or 0, **header)
        except OSError:
            self.close()
            raise

    def write(self, kind: str, **fields: Any) -> None:
        """Appends one line: its type, the fields; NaN and infinity become null."""
        self._file.write(dump_json({"type": kind, **fields}, indent=None) + "\n")
        self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of the half line that a full disk has left in the buffer
            self._file.close()


def header(solver_text: str, snapshot_prefix: str, seed: int) -> dict[str, Any]:
    """The fields of a run's first line."""
    from importlib.metadata import version

    from sslnet import __version__
    from sslnet.kernels.runtime.threads import num_threads

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "sslnet": __version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "machine": platform.machine(),
        "threads": num_threads(),
        "seed": seed,
        "snapshot_prefix": snapshot_prefix,
        "solver": solver_text,
    }


def lines_before(path: Path, iteration: int, snapshot_prefix: str) -> list[str] | None:
    """The lines of a run up to an iteration, its header first; None if the file belongs to other snapshots."""
    try:
        lines = [f"{line}\n" for line in read_text(path, limit=MOST_BYTES, errors="strict").split("\n")[:-1]]
    except (DataError, UnicodeDecodeError):
        return None
    records = [_record(line) for line in lines]
    if not records or records[0] is None or records[0].get("snapshot_prefix") != snapshot_prefix:
        return None
    return [lines[0], *(line for line, record in zip(lines[1:], records[1:]) if record and _before(record, iteration))]


def _before(record: dict[str, Any], iteration: int) -> bool:
    """Whether the run that goes on from a snapshot of that iteration does not measure this again: of the iteration itself
    only the snapshot comes before it."""
    at = whole(record.get("iteration"))
    return at is not None and (at < iteration or (at == iteration and record.get("type") == "snapshot"))


def _new_file(path: Path) -> TextIO:
    """Creates an empty file for this run alone, even if another run starts in the folder at the same moment."""
    while True:
        _set_aside(path)
        try:
            return open(path, "x", encoding="utf-8")
        except FileExistsError:
            continue


def _set_aside(path: Path) -> None:
    """Renames an existing file to the next free name of metrics.1.jsonl, metrics.2.jsonl, ...; reserves the name first."""
    if not path.exists():
        return
    for number in count(1):
        other = path.with_name(f"{path.stem}.{number}{path.suffix}")
        try:
            open(other, "x").close()
            break
        except FileExistsError:
            continue
    try:
        os.replace(path, other)
    except FileNotFoundError:  # another run was first
        other.unlink()


def _record(line: str) -> dict[str, Any] | None:
    """The object of a line; None if there is none."""
    try:
        return fields(parse_json(line)) or None
    except ValueError:
        return None
