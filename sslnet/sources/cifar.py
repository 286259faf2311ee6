"""Reads CIFAR-10, binary version: records of one label byte and 3 x 32 x 32 bytes, the planes red, green, blue.

Read from .bin, .bin.gz or .bin.xz. Ref: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import os

import numpy as np

from sslnet.errors import DataError
from sslnet.sources.unpack import open_unpacked

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
LIMIT = 100_000 * RECORD
"""Maximum number of bytes read from one file; the largest official file, of CIFAR-100, has half as many."""


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The decompressed bytes of one file. raises DataError"""
    with open_unpacked(path, LIMIT) as file:
        raw = file.read(LIMIT + 1)
    if len(raw) > LIMIT:
        raise DataError(f"is larger than any CIFAR file: more than {LIMIT} bytes", path=os.fspath(path))
    return raw


def split_records(raw: bytes, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Splits the bytes of a file into images (n, 3, 32, 32) uint8, planes R, G, B, and labels (n) uint8. raises
    DataError if the last record is not complete"""
    if not raw or len(raw) % RECORD:
        raise DataError(f"has {len(raw)} bytes, which is not a number of {RECORD}-byte records", path=path)
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0]
