"""Reads IDX, the file format of MNIST: a magic number, the sizes of the axes (big-endian), then the bytes; gzipped or not.

Ref: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import math
import os

import numpy as np

from sslnet.errors import DataError
from sslnet.sources.base import ArraySource
from sslnet.sources.unpack import open_unpacked

UNSIGNED_BYTE = 8
MOST_AXES = 32
"""Maximum number of axes, as in NumPy 1."""
MOST_UNPACKED = 1 << 30
"""Maximum number of decompressed bytes of a file; the largest set of this kind, EMNIST, has half as many."""


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the array of one IDX file of unsigned bytes.

    returns uint8, in the shape given in the file
    raises DataError if the file cannot be read, is cut off, too long, or has other contents. The function reads no more than
    the sizes in the first bytes announce, and needs no more memory than the file has data.
    """
    name = os.fspath(path)
    with open_unpacked(path, MOST_UNPACKED) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0":
            raise DataError("is not an IDX file: it does not begin with two zero bytes", path=name)
        if head[2] != UNSIGNED_BYTE:
            raise DataError(f"holds values of type 0x{head[2]:02x}; only unsigned bytes (0x08) are read", path=name)
        if head[3] > MOST_AXES:
            raise DataError(f"announces {head[3]} axes; at most {MOST_AXES} are read", path=name)
        sizes = file.read(4 * head[3])
        if not sizes or len(sizes) < 4 * head[3]:
            raise DataError("is cut off within its header", path=name)
        shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
        raw = file.read(math.prod(shape) + 1)
    if len(raw) != math.prod(shape):
        more = " or more" if len(raw) > math.prod(shape) else ""
        raise DataError(
            f"holds {len(raw)} values{more}, but its header announces {' x '.join(map(str, shape))} = {math.prod(shape)}",
            path=name,
        )
    try:
        return np.frombuffer(raw, np.uint8).reshape(shape)
    except ValueError as error:  # 0 values, but of other axes that make more than NumPy counts
        raise DataError(f"announces no array: {' x '.join(map(str, shape))} values", path=name) from error


def idx_source(name: str, images: str | os.PathLike[str], labels: str | os.PathLike[str]) -> ArraySource:
    """A source from a pair of IDX files: images (n, H, W) and labels (n)."""
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3:
        raise DataError(f"has {pixels.ndim} axes, images have 3 (number, height, width)", path=os.fspath(images))
    if classes.shape != pixels.shape[:1]:
        raise DataError(f"there are {len(pixels)} images, but {classes.size} labels", path=os.fspath(labels))
    return ArraySource(name, pixels[:, None], classes)
