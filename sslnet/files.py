"""Files: written completely or not at all, and searched relative to the file that names them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sslnet.errors import DataError, RunError, Span, SslnetError, UsageError

MOST_BYTES = 8 << 30
"""Size limit of a file that is read at once: weights, states, models of other frameworks."""
MOST_TEXT = 256 << 20
"""Size limit of a text file: a table, class names."""
MOST_LIST = 1 << 30
"""Size limit of a list of images."""
MOST_IMAGE = 1 << 30
"""Size limit of a file with one image, or a mean image."""
MOST_MESSAGE = 2**31 - 1
"""Size limit of a message, which is protobuf's own."""
HDF5_ROOM = 2 << 20
"""Number of bytes that HDF5 may write in addition to the values of a data set: chunks in its memory, and their
index."""
TEMPORARY = re.compile(r"\.[0-9a-f]{8}-(.+)", re.DOTALL)
"""Format of the temporary name of a file that is being written."""
_NO_LINK, _CLOSE_ON_EXEC = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_CLOEXEC", 0)


def atomic_write(path: str | os.PathLike[str], data: bytes, *, follow: bool = True, new: bool = False) -> None:
    """Writes a file so that at any moment, even after a kill, `path` is the complete old or the complete new file.

    follow, new  as for atomic_path
    raises RunError if it cannot be written; the old file is then unchanged
    """
    with atomic_path(path, follow=follow, new=new) as temporary:
        temporary.write_bytes(data)


def atomic_write_all(files: Mapping[str, bytes]) -> None:
    """Writes several files, all or none: each is on the disk before the first is renamed.

    raises RunError if one of them cannot be written
    """
    with contextlib.ExitStack() as stack:
        for path, data in files.items():
            temporary = stack.enter_context(atomic_path(path))
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, follow: bool = True, new: bool = False) -> Iterator[Path]:
    """Provides the name of a temporary file beside `path` to write to; at the end, flushes it and renames it to `path`.

    An exception inside leaves `path` unchanged and removes the temporary file; temporary files of killed processes are
    removed as well. The temporary name keeps the suffix, for writers that depend on it.

    follow  whether to replace the file that a symbolic link `path` points to; otherwise the link itself is replaced
    new     whether `path` must not exist
    raises RunError if the folder is missing, the disk is full, ...
    """
    place = os.fspath(path)
    if "\0" in place:
        raise RunError(f"{place!r} is not the name of a file")
    target = (
        Path(os.path.realpath(place)) if follow else Path(os.path.realpath(os.path.dirname(place)), Path(place).name)
    )
    try:
        if not target.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {target.parent}")
        found = target.lstat() if os.path.lexists(target) else None
        if found is not None and not stat.S_ISREG(found.st_mode) and not (stat.S_ISLNK(found.st_mode) and not follow):
            raise FileExistsError(f"it is {_kind(found.st_mode)}, not a file")  # root could replace even a device
        remove_remains(target.parent, target.name, whole=True)
        with _temporary(target) as temporary:
            yield temporary
            _flush(temporary, os.O_RDWR)
            _put_in_place(temporary, target, new)
        with contextlib.suppress(OSError):  # not every system can flush a folder; the file itself is safe by then
            _flush(target.parent, os.O_RDONLY)
    except OSError as error:
        raise RunError(f"cannot write {place}: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_hdf5(path: str | os.PathLike[str], *, follow: bool = True, new: bool = False) -> Iterator[Any]:
    """Provides an HDF5 file (h5py.File) to fill; at the end it is written to `path` as atomic_write does.

    It is in memory until then: the HDF5 library must not meet a full disk itself, because it writes data that remain after
    a failed close again at the end of the process, which then crashes.
    follow, new  as for atomic_path
    raises RunError as atomic_write does
    """
    import h5py

    with h5py.File(f"memory:{secrets.token_hex(8)}", "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    atomic_write(path, image, follow=follow, new=new)


def reserve_hdf5(path: str | os.PathLike[str], size: int) -> None:
    """Reserves disk space for an HDF5 file that will grow to this many bytes, plus HDF5_ROOM per data set.

    The HDF5 library must not meet a full disk itself (atomic_hdf5). A file that is opened again for each addition returns
    unused space when it is closed; a file that remains open must be truncated at the end.
    raises OSError if there is not enough space; the file is then unchanged
    """
    if not hasattr(os, "posix_fallocate"):
        return
    handle = os.open(path, os.O_RDWR)
    try:
        end = os.fstat(handle).st_size
        try:
            if size > end:
                os.posix_fallocate(handle, end, size - end)
        except OSError:
            os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)


def make_folder(path: str | os.PathLike[str]) -> str:
    """Creates the folder for a file of this name, or for files with this prefix, and returns it. raises RunError"""
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder: {error.strerror or error}", path=os.fspath(folder)) from error
    return os.fspath(folder)


def remove_remains(folder: str | os.PathLike[str], *starts: str, whole: bool = False) -> None:
    """Removes the temporary files of killed processes in a folder, for files whose names start with the prefix.

    A file that a running process still writes is kept: the process holds a lock on it.
    whole  whether `starts` are complete names instead of prefixes
    """
    try:
        found = [name for name in os.listdir(folder) if (match := TEMPORARY.fullmatch(name)) and
                 (match[1] in starts if whole else match[1].startswith(starts))]  # fmt: skip
    except OSError:
        return
    for name in found:
        place = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            handle = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _NO_LINK | _CLOSE_ON_EXEC)
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode) and _lock(handle):
                    os.unlink(place)
            finally:
                os.close(handle)


@contextlib.contextmanager
def sole_user(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Holds a lock, the file ``path``, for the duration of the block. The lock of a killed process is released.

    what   purpose of the lock, for errors
    raises UsageError if another process, or another part of this one, holds it, or the file is not a lock of sslnet; RunError
           if it cannot be created; without locks (Windows, some file systems) nothing is held
    """
    place = os.fspath(path)
    while True:
        try:
            handle = os.open(place, os.O_RDWR | os.O_CREAT | _NO_LINK | _CLOSE_ON_EXEC, 0o666)
        except OSError as error:
            raise RunError(f"cannot make the lock {place}: {error.strerror or error}") from error
        if os.fstat(handle).st_size:
            os.close(handle)
            raise UsageError(
                f"{place} is not a lock of sslnet: it is not empty", hint=f"choose another name for {what}"
            )
        held = _lock(handle)
        if held is False:
            os.close(handle)
            raise UsageError(f"{what} is in use by another run", hint=f"{place} is its lock")
        if held is None or _is_still(place, handle):
            break
        os.close(handle)  # its last user has just removed it: create it again
    try:
        yield
    finally:
        if held is None:  # where there are no locks an open file may not even be removed
            os.close(handle)
        with contextlib.suppress(OSError):
            os.unlink(place)
        if held:
            os.close(handle)


def open_regular(
    path: str | os.PathLike[str], *, limit: int = MOST_BYTES, error: type[SslnetError] = DataError
) -> BinaryIO:
    """Opens a regular file for reading. Reading a device would not end, opening a FIFO would wait.

    limit   maximum size in bytes
    raises  `error` for anything but a regular file, and for a file that is larger or cannot be opened
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
    """Reads all bytes of a regular file, at most `limit`. raises `error` as open_regular does"""
    place = os.fspath(path)
    with open_regular(place, limit=limit, error=error) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size + 1)  # no more: read allocates the requested number of bytes
            if len(data) > size:  # it grows, or is a system file, whose size is given as 0
                data += file.read(limit + 1 - len(data))
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
    """Reads a text file in UTF-8. errors: handling of other bytes (bytes.decode). raises `error` as open_regular
    does"""
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
    """Finds the file or folder that a definition calls `name`.

    The search begins in the working directory, as in Caffe; then follow the folder of each file in `beside` (the files
    that name it, or their folders), and that folder's parents, up to the first that has it.

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


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A new empty file beside the target, locked for the duration of the block and removed at the end if it still
    exists."""
    while True:
        path = target.with_name(f".{secrets.token_hex(4)}-{target.name}")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOSE_ON_EXEC, 0o666)
        locked = _lock(handle)
        if locked is None or (locked and _is_still(path, handle)):
            break
        os.close(handle)  # another process removed it as a remains, before it was locked
    if locked is None:  # where there are no locks an open file may not even be renamed
        os.close(handle)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        if locked:
            os.close(handle)


def _put_in_place(temporary: Path, target: Path, new: bool) -> None:
    if not new:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        raise FileExistsError("a file of this name already exists") from None
    except OSError:  # a file system without hard links
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, target)


def _lock(handle: int) -> bool | None:
    """Locks an open file for this process. False: another process has the lock; None: there are no locks here."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None


def _is_still(path: str | os.PathLike[str], handle: int) -> bool:
    """Whether the open file is still the file of this name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except OSError:
        return False


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
