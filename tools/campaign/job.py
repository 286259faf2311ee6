"""The work of a part on one target."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from campaign.counts import MOST_FINDINGS, Count
from campaign.seeds import Seeds

REPORT_EVERY = 1.0
"""Seconds between two reports of the counts."""


class Skipped(Exception):
    """The part cannot run on this machine; the message gives the reason."""


@dataclass
class Job:
    """One target of one part.

    folder    an empty folder of its own
    report    descriptor to which counts are written, one line of JSON each; None: they are not written
    """

    count: Count
    seeds: Seeds
    folder: Path
    seed: int
    seconds: float
    report: int | None = None
    nice: int = 0
    started: float = field(default_factory=time.monotonic)
    _reported: float = 0.0

    @property
    def target(self) -> str:
        return self.count.target

    @property
    def findings(self) -> Path:
        """Folder of the findings."""
        return self.folder.parent / "findings"

    def rng(self, *key: object) -> random.Random:
        """A generator that depends only on the seed, the target and the key."""
        return random.Random("/".join(map(str, (self.seed, self.count.name, *key))))

    def left(self) -> float:
        return self.started + self.seconds - time.monotonic()

    def over(self) -> bool:
        """Whether the time is over. Called between two runs, so that counts are reported as well."""
        self.tell()
        return self.left() <= 0

    def find(self, kind: str, what: str, details: str = "", source: Path | None = None, key: object = "") -> None:
        """Counts a finding and saves it: a text file with details, and a copy of the input or folder that caused it."""
        self.count.find(kind, what)
        number = sum(self.count.found.values())
        if number > MOST_FINDINGS:
            return
        self.findings.mkdir(exist_ok=True)
        name = f"{self.count.part}-{self.target}-{key if key != '' else number}"
        self.findings.joinpath(f"{name}.txt").write_text(
            f"{kind}: {what}\nseed {self.seed}\n\n{details}\n", errors="backslashreplace"
        )
        if source is not None and source.exists():
            copy = self.findings / f"{name}-{source.name}"
            if source.is_dir():
                shutil.copytree(source, copy, dirs_exist_ok=True, symlinks=True)
            else:
                shutil.copy(source, copy)

    def tell(self, *, now: bool = False) -> None:
        """Reports the counts, at most once a second."""
        self.count.seconds = time.monotonic() - self.started
        if self.report is not None and (now or time.monotonic() - self._reported >= REPORT_EVERY):
            self._reported = time.monotonic()
            os.write(self.report, json.dumps(self.count.as_dict()).encode() + b"\n")


def temporary_files(folder: Path) -> list[str]:
    """Files and folders below the folder whose names begin with a dot, which sslnet uses for temporary files."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


def empty(folder: Path) -> None:
    """Removes everything in the folder; creates it if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
