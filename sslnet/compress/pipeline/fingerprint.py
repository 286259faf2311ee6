"""Fingerprints of files and texts, to detect whether the inputs of an interrupted command have changed."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from sslnet.errors import WeightsError
from sslnet.files import open_regular, resolve

if TYPE_CHECKING:
    pass


def file_mark(path: str | os.PathLike[str], beside: str | None = None) -> str:
    """Fingerprint of a file's content, in hexadecimal digits. raises WeightsError when it cannot be read"""
    found = resolve(os.fspath(path), beside, error=WeightsError)
    try:
        with open_regular(found, error=WeightsError) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]  # type: ignore[arg-type]
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror or error}", path=os.fspath(path)) from error


def text_mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
