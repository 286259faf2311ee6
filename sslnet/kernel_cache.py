"""Where Numba keeps what it compiled, on machines where its own choices cannot be written.

Numba keeps compiled kernels beside the sources, else in the user's cache folder, and fails where it can write neither:
in a container, say, that runs as a user without a home on a read-only image. A folder of temporary files is the third
choice. It holds code that is run, so it must belong to this user alone.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def ensure_cache_folder() -> None:
    """Names a temporary folder to Numba if nothing was named and neither of its own choices can be written."""
    if os.environ.get(VARIABLE) or sys.platform == "win32" or _writable(Path(__file__).parent):
        return
    if not _writable(_user_cache()):
        os.environ[VARIABLE] = _own_temporary_folder()


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path(os.path.expanduser("~/Library/Caches"))
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))


def _writable(folder: Path) -> bool:
    """Whether files can be made in it, or the folder itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _own_temporary_folder() -> str:
    """The same one in every run, unless somebody else has taken its name."""
    import tempfile

    folder = os.path.join(tempfile.gettempdir(), f"sslnet-kernels-{os.geteuid()}")
    try:
        os.mkdir(folder, mode=0o700)
    except FileExistsError:
        found = os.lstat(folder)
        theirs = found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022
        if theirs or not stat.S_ISDIR(found.st_mode):
            return tempfile.mkdtemp(prefix="sslnet-kernels-")
    return folder
