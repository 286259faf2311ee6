"""The files that layers of a net may write. A net from elsewhere names its own files and must not choose freely.

A layer writes only below one folder, by default the working folder, and never replaces a file that it did not create
itself, unless ``overwrite`` allows it. The rule holds for the whole process, as ``allow_python_layers`` does. Only the
commands that train or test allow layers to write.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OutputRule:
    """root       folder that files must be in or below; None: the working folder
    overwrite  whether a file that is there already may be replaced
    writes     False: layers write nothing
    """

    root: str | None = None
    overwrite: bool = False
    writes: bool = True

    def problem(self, name: str) -> str | None:
        """Why a layer may not create the file ``name``; None when it may. Links on the way count as where they lead."""
        if not name or "\0" in name:
            return f"{name!r} is not the name of a file"
        root = Path(os.path.realpath(self.root or os.curdir))
        place = Path(os.path.realpath(name))
        if root not in place.parents:
            return f"{name} is not below {self.root or 'the working folder'}"
        if os.path.lexists(name) and not self.overwrite and not is_made(name):
            return f"{name} already exists"
        return None


_rule = OutputRule()
_made: set[tuple[int, int]] = set()


def note_made(name: str | os.PathLike[str]) -> None:
    """Records that a layer created this file, so that layers of this process may replace it."""
    found = os.lstat(name)
    _made.add((found.st_dev, found.st_ino))


def is_made(name: str | os.PathLike[str]) -> bool:
    """Whether a layer of this process created the file; links do not count."""
    found = os.lstat(name)
    return (found.st_dev, found.st_ino) in _made


def output_rule() -> OutputRule:
    """The present rule."""
    return _rule


def set_output_rule(root: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> None:
    """Sets where layers that write files (HDF5Output) may do so.

    root       folder that the files must be in or below; None: the working folder
    overwrite  whether files that are there already may be replaced
    """
    global _rule
    _rule = OutputRule(None if root is None else os.path.abspath(root), overwrite)


@contextlib.contextmanager
def layers_write(rule: OutputRule) -> Iterator[None]:
    """The rule holds while the block runs, for which files made before are those of somebody else."""
    global _rule, _made
    before = _rule, _made
    _rule, _made = rule, set()
    try:
        yield
    finally:
        _rule, _made = before
