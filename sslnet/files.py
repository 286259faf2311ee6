"""Files: written whole or not at all, and found where their namers mean them to be."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from sslnet.errors import DataError, RunError, Span, SslnetError, UsageError


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
