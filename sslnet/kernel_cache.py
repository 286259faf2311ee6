"""The cache folder of compiled kernels: one for each version of the sources that they are compiled from.

Numba compiles a kernel again when the kernel's own file has changed. That is too seldom here: functions, constants and
code generators of other files are compiled into it. So the folder is named by a digest of all sources that compiled code
can contain, and a change of any of them begins a new folder. The same sources find theirs again, wherever they are
installed. The folders used last are kept; older ones are removed unless a running process holds them.

The folder lies in the one that NUMBA_CACHE_DIR names, else in the package, else in the user's cache folder, else, in a
container without a home on a read-only image, say, among the temporary files. It holds code that is run, so a folder of
temporary files must belong to this user alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent
PREFIX = "sslnet-kernels-"
KEPT = 3
"""Number of most recently used folders for other versions of the sources that are kept."""
MARKS = (b"numba", b"kernels.runtime.jit", b"kernels.runtime.compiler")
"""A file outside kernels/ that holds kernels imports one of them."""

_held: list[int] = []
"""Open folders, locked for as long as this process runs."""


def kernel_sources(package: Path = PACKAGE) -> Iterator[tuple[str, bytes]]:
    """(path from the package's folder, content) of every file that compiled code can contain something of, in order."""
    for where, folders, names in os.walk(package):
        folders[:] = sorted(set(folders) - {"__pycache__"})
        inside = Path(where).relative_to(package)
        for name in sorted(name for name in names if name.endswith(".py")):
            with open(os.path.join(where, name), "rb") as file:
                content = file.read()
            if inside.parts[:1] == ("kernels",) or any(mark in content for mark in MARKS):
                yield f"{inside.as_posix()}/{name}", content


def source_digest(package: Path = PACKAGE) -> str:
    """16 hexadecimal digits of the kernels' sources."""
    digest = hashlib.blake2b(digest_size=8)
    for name, content in kernel_sources(package):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def open_folder(named: str) -> Path:
    """The folder of the present sources: made if need be, and held, so that no other process removes it.

    named   the folder that the user wants kernels to be kept in; "" if there is none
    raises OSError where no folder can be made
    """
    name = PREFIX + source_digest()
    for base in [Path(named).absolute()] * bool(named) + [default_base()]:
        with contextlib.suppress(OSError):
            return _open(base / name)
    return _open(_own_temporary_folder() / name)


def default_base() -> Path:
    """Where the folders are kept when the user names no place."""
    if _writable(PACKAGE):
        return PACKAGE / "__pycache__"
    return _user_cache() if _writable(_user_cache()) else _own_temporary_folder()


def _open(folder: Path) -> Path:
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # it may be another user's
        os.utime(folder)
    _hold(folder)
    if new:
        _remove_unused(folder)
    return folder


def _hold(folder: Path) -> None:
    """Locks the folder for reading; the lock ends with the process. Some systems have no such locks: nothing is removed there."""
    if sys.platform == "win32":
        return
    import fcntl

    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(handle), os.stat(folder)):
                _held.append(handle)
                return
        except FileNotFoundError:
            pass  # it was being removed while this process opened it
        except OSError:
            os.close(handle)
            return
        os.close(handle)


def _remove_unused(own: Path) -> None:
    """Removes the folders beside this one that nobody holds, but for the last few."""
    if sys.platform == "win32":
        return
    import fcntl

    name = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}")
    used: list[tuple[float, Path]] = []
    for folder in own.parent.iterdir():
        with contextlib.suppress(OSError):
            if name.fullmatch(folder.name) and folder.name != own.name and not folder.is_symlink():
                used.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(used, reverse=True)[KEPT:]:
        with contextlib.suppress(OSError):  # held, another user's, or gone
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(handle)


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")) / "numba"
    if sys.platform == "darwin":
        return Path(os.path.expanduser("~/Library/Caches/numba"))
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "numba"


def _writable(folder: Path) -> bool:
    """Whether files can be made in it, or the folder itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _own_temporary_folder() -> Path:
    """The same one in every run, unless somebody else has taken its name."""
    import tempfile

    if sys.platform == "win32":
        return Path(tempfile.gettempdir())
    folder = Path(tempfile.gettempdir(), f"{PREFIX}{os.geteuid()}")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = os.lstat(folder)
        theirs = found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022
        if theirs or not stat.S_ISDIR(found.st_mode):
            return Path(tempfile.mkdtemp(prefix=PREFIX))
    return folder
