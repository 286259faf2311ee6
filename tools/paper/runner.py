"""Runs steps in a working folder: complete steps are skipped, an interrupted training continues from its last snapshot.

``step.json`` beside a step's files contains its command and a hash of the contents of its inputs. If these differ from the
current ones, the files are of another recipe, which is an error: no file is deleted, and old files are not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from paper.steps import Step
from sslnet import prototxt
from sslnet.errors import RunError, UsageError
from sslnet.files import atomic_path, atomic_write

Execute = Callable[[list[str], Path, Path | None], int]
"""A function (arguments of `sslnet`, working folder, file for its output) -> exit code."""


class Stopped(Exception):
    """The run was stopped on request."""


class Runner:
    def __init__(self, root: Path, work: Path, data: Path | None, execute: Execute | None = None) -> None:
        """
        root  the clone: models, solvers
        data  folder with mnist and cifar10, as `sslnet data` makes them; None: no step needs them
        """
        self.work = work
        self.execute = execute or run_sslnet
        work.mkdir(parents=True, exist_ok=True)
        for name, target in (("models", root / "models"), ("solvers", root / "solvers"), ("data", data)):
            if target is not None:
                link(work / name, target.absolute())

    def run(self, steps: Iterable[Step]) -> None:
        """Runs a step. raises UsageError for files of another recipe, RunError if a command fails, Stopped"""
        for step in steps:
            mark = self.work / step.folder / "step.json"
            today = self._fingerprint(step)
            before = json.loads(mark.read_text()) if mark.exists() else None
            if before is not None and before != today:
                raise UsageError(
                    f"{self.work / step.folder} was made by another command, or from other files: {_difference(before, today)}",
                    hint="remove it to make it anew, or name another --work",
                )
            mark.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(mark, json.dumps(today, indent=1).encode())
            if not self.is_done(step):
                self._run(step)
            elif before is None:
                print(f"{step.makes} is there already: it is taken as it is", file=sys.stderr)

    def is_done(self, step: Step) -> bool:
        return (self.work / step.makes).exists()

    def _run(self, step: Step) -> None:
        words = list(step.words)
        state = self._last_state(step) if step.trains else None
        if state is not None:
            words = [*without_weights(words), "--snapshot", state]
        print(f"{step.folder}: {' '.join(['sslnet', *words])}", file=sys.stderr, flush=True)
        if step.printed:
            with atomic_path(self.work / step.makes) as temporary:
                code = self.execute(words, self.work, temporary)
                self._check(step, code)
        else:
            self._check(step, self.execute(words, self.work, None))
        if not self.is_done(step):
            raise RunError(f"{step.folder}: {step.makes} was not made")

    @staticmethod
    def _check(step: Step, code: int) -> None:
        if code in (130, -signal.SIGINT):
            raise Stopped
        if code:
            raise RunError(f"{step.folder}: the command failed (exit code {code})", hint=str(step))

    def _last_state(self, step: Step) -> str | None:
        """The last snapshot of an interrupted training."""
        found = {}
        for path in (self.work / step.folder).glob("net_iter_*.solverstate"):
            match = re.fullmatch(r"net_iter_(\d+)\.solverstate", path.name)
            if match and path.with_suffix(".caffemodel").exists():
                found[int(match[1])] = f"{step.folder}/{path.name}"
        return found[max(found)] if found else None

    def _fingerprint(self, step: Step) -> dict[str, object]:
        return {"command": str(step), "reads": {name: self._digest(name) for name in step.reads}}

    def _digest(self, name: str) -> str:
        """A hash of a definition without comments, or of another file's bytes. raises UsageError if the file is
        missing"""
        path = self.work / name
        if not path.exists():
            raise UsageError(f"there is no {path}")
        if path.suffix != ".prototxt":
            return digest(path.read_bytes())
        definition = prototxt.read_solver(path) if name.startswith("solvers/") else prototxt.read_net(path)
        return digest(prototxt.write(definition.message).encode())


def run_sslnet(words: list[str], work: Path, output: Path | None) -> int:
    """Runs a command in a process of its own; Ctrl-C goes to that process, which may still write a snapshot."""
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # the child would inherit the ignored signal, so the handler is restored
        command = [sys.executable, "-c", START, *words]
        if output is None:
            return subprocess.run(command, cwd=work, env=environment, stdout=sys.stderr).returncode
        with open(output, "wb") as file:
            return subprocess.run(command, cwd=work, env=environment, stdout=file).returncode
    finally:
        signal.signal(signal.SIGINT, before)


START = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from sslnet.cli import main; sys.exit(main())"


def link(place: Path, target: Path) -> None:
    """Makes ``place`` a link to ``target``, or keeps an existing one. raises UsageError if anything else is there"""
    if place.is_symlink() and place.resolve() == target.resolve():
        return
    if place.is_symlink() or place.exists():
        raise UsageError(f"{place} is in the way: it would be a link to {target}", hint="name another --work")
    place.symlink_to(target, target_is_directory=True)


def without_weights(words: list[str]) -> list[str]:
    """The arguments of a continued training, whose weights are in the snapshot."""
    if "--weights" not in words:
        return words
    at = words.index("--weights")
    return words[:at] + words[at + 2 :]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _difference(before: dict[str, object], today: dict[str, object]) -> str:
    if before.get("command") != today["command"]:
        return "the command is another one"
    old, new = before.get("reads"), today["reads"]
    assert isinstance(old, dict) and isinstance(new, dict)
    return ", ".join(name for name in new if old.get(name) != new[name]) + " changed"
