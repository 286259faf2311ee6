"""Downloads files: resumable, verified, renamed to the target only when complete."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from sslnet.errors import RunError

CHUNK = 1 << 16
TIMEOUT = 30
"""Number of seconds without data after which a download fails."""

Progress = Callable[[int, int | None], object]
"""A function progress(number of bytes present, expected number or None)."""


def download(
    urls: Sequence[str], target: str | os.PathLike[str], md5: str | None, progress: Progress | None = None
) -> Path:
    """Downloads a file from the first URL that offers it.

    After an interruption the bytes received so far are in ``target``.part, and the next call continues from there.

    md5     md5 of the file; None: not verified
    raises  RunError, which lists the attempts, if no URL offers it
    """
    target = Path(target)
    part = target.with_name(target.name + ".part")
    failures = []
    for url in urls:
        try:
            resumed = _fetch(url, part, progress)
            if resumed and md5 and file_md5(part) != md5:  # the bytes from before may be of another file
                part.unlink()
                _fetch(url, part, progress)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            failures.append(f"{url}: {reason}")
            continue
        found = file_md5(part)
        if md5 is None or found == md5:
            os.replace(part, target)
            return target
        part.unlink()
        failures.append(f"{url}: the file has the md5 {found}, not {md5}")
    raise RunError(f"cannot download {target.name}: {'; '.join(failures)}")


def file_md5(path: str | os.PathLike[str]) -> str:
    """The md5 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _fetch(url: str, part: Path, progress: Progress | None) -> bool:
    """Appends the missing bytes to ``part``; returns whether ``part`` had any bytes before."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # the file is complete, or is another one: the checksum shows which
            return True
        raise
    with response:
        resumed = bool(response.status == 206)
        length = response.headers.get("Content-Length")
        done = have if resumed else 0
        expected = done + int(length) if length else None
        with open(part, "ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, expected)
    if expected is not None and done < expected:
        raise OSError(f"the connection ended after {done} of {expected} bytes")
    return resumed
