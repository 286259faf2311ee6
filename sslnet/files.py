"""Files: written whole or not at all, and found where their namers mean them to be."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sslnet.errors import DataError, RunError, Span, SslnetError, UsageError

MOST_BYTES = 8 << 30
"""Of a file that is read whole: weights, states, models of other frameworks."""
MOST_TEXT = 256 << 20
"""Of a text: a prototxt, a list of images, the names of classes."""


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment, killed or not, `path` is the old file or the new one, never a part.

    raises RunError when it cannot be written; the old file is then as it was
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the name of a temporary file beside `path` to write to; on leaving, flush it and put it in `path`'s place.

    An exception inside leaves `path` as it was and removes the temporary file. The temporary name keeps the suffix,
    for writers that go by it.

    raises RunError when the folder is missing, the disk is full, ...
    """
    target = Path(os.path.realpath(path))  # a link stays a link: what it points to is replaced
    temporary = target.with_name(f".{secrets.token_hex(4)}-{target.name}")
    try:
        try:
            if not target.parent.is_dir():
                raise FileNotFoundError(f"there is no folder {target.parent}")
            yield temporary
            _flush(temporary, os.O_RDWR)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not every system can flush a folder; the file itself is safe by then
            _flush(target.parent, os.O_RDONLY)
    except OSError as error:
        raise RunError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error


@contextlib.contextmanager
def sole_user(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Holds a lock while the block runs; ``path`` is its file, there for as long. A killed process leaves no lock behind.

    what   whom the lock is for, for the error's sake
    raises UsageError when another process, or another part of this one, has it; without locks (Windows) nothing is held
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{what} is in use by another run", hint=f"{os.fspath(path)} is its lock") from None
        except OSError:  # a file system without locks
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


def open_regular(
    path: str | os.PathLike[str], *, limit: int = MOST_BYTES, error: type[SslnetError] = DataError
) -> BinaryIO:
    """Opens a regular file for reading. A device would be read for ever, a FIFO waited for.

    limit   bytes it may have
    raises  `error` for what is no regular file, is larger or cannot be opened
    """
    place = os.fspath(path)
    try:
        handle = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        raise error(f"cannot be read: {getattr(problem, 'strerror', None) or problem}", path=place) from problem
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise error(f"cannot be read: it is {_kind(found.st_mode)}, not a file", path=place)
        if found.st_size > limit:
            raise error(f"has {found.st_size} bytes; at most {limit} are read", path=place)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | os.PathLike[str], *, limit: int = MOST_BYTES, error: type[SslnetError] = DataError) -> bytes:
    """All bytes of a regular file, at most `limit`. raises `error`, see open_regular"""
    place = os.fspath(path)
    with open_regular(place, limit=limit, error=error) as file:
        try:
            data = file.read(limit + 1)  # it may grow, and files of the system say that they have no bytes
        except OSError as problem:
            raise error(f"cannot be read: {problem.strerror or problem}", path=place) from problem
    if len(data) > limit:
        raise error(f"has more than {limit} bytes, which are the most that are read", path=place)
    return data


def read_text(
    path: str | os.PathLike[str],
    *,
    limit: int = MOST_TEXT,
    errors: str = "surrogateescape",
    error: type[SslnetError] = DataError,
) -> str:
    """A text file in UTF-8. errors: what becomes of other bytes (bytes.decode). raises `error`, see open_regular"""
    return read_bytes(path, limit=limit, error=error).decode("utf-8", errors)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def resolve(
    name: str,
    *beside: str | os.PathLike[str] | None,
    error: type[SslnetError] = DataError,
    span: Span | None = None,
    layer: str | None = None,
) -> Path:
    """The file or folder that a definition calls `name`.

    Looked for from the working directory first, as Caffe does; then from the folder of each file in `beside` (the ones
    that name it, or their folders), and from that folder's parents up to the first that has it.

    raises `error`, which lists the places tried
    """
    if not name or "\0" in name:
        raise error(f"{name!r} is not the name of a file", span=span, layer=layer)
    tried: list[Path] = []
    for folder in _folders(beside):
        place = folder / name
        if _exists(place):
            return place
        if place not in tried:
            tried.append(place)
    places = ", ".join(str(place) for place in tried[:4]) + (" and the folders above" if len(tried) > 4 else "")
    raise error(f'there is no file "{name}"', span=span, layer=layer, hint=f"looked for {places}")


def _folders(beside: tuple[str | os.PathLike[str] | None, ...]) -> Iterator[Path]:
    yield Path()
    for namer in beside:
        if namer is not None:
            place = Path(os.path.abspath(namer))
            folder = place if place.is_dir() else place.parent
            yield from (folder, *folder.parents)


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a name too long, a folder that may not be read
        return False


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
