"""IDX, the container of MNIST: a magic number, the sizes of the axes (big-endian), then the bytes; gzipped or not.

Ref: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from sslnet.errors import DataError
from sslnet.sources.base import ArraySource

UNSIGNED_BYTE = 8


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of one IDX file of unsigned bytes.

    returns uint8, shape as the file says
    raises DataError when it cannot be read, is cut off, too long, or holds something else. No more is ever read than the
    sizes in its first bytes announce, and no more is taken than is there.
    """
    name = os.fspath(path)
    try:
        raw = Path(path).read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = _gunzip(raw)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=name) from error
    except (EOFError, zlib.error) as error:
        raise DataError("the gzip file is cut off or damaged", path=name) from error
    shape = _shape(raw, name)
    start = 4 + 4 * len(shape)
    if len(raw) - start != math.prod(shape):
        raise DataError(
            f"holds {len(raw) - start} values, but its header announces {' x '.join(map(str, shape))} = {math.prod(shape)}",
            path=name,
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def idx_source(name: str, images: str | os.PathLike[str], labels: str | os.PathLike[str]) -> ArraySource:
    """The source of a pair of IDX files: images (n, H, W) and labels (n)."""
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3:
        raise DataError(f"has {pixels.ndim} axes, images have 3 (number, height, width)", path=os.fspath(images))
    if classes.shape != pixels.shape[:1]:
        raise DataError(f"there are {len(pixels)} images, but {classes.size} labels", path=os.fspath(labels))
    return ArraySource(name, pixels[:, None], classes)


def _gunzip(raw: bytes) -> bytes:
    """The decompressed file, as far as its own header says that it goes (a few bytes can unpack to gigabytes)."""
    import io

    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        head = file.read(4)
        if len(head) < 4:
            return head
        head += file.read(4 * head[3])
        size = math.prod(int.from_bytes(head[i : i + 4], "big") for i in range(4, len(head), 4))
        return head + file.read(min(size, 1100 * len(raw)) + 1)  # deflate packs at most 1032 : 1


def _shape(raw: bytes, path: str) -> tuple[int, ...]:
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise DataError("is not an IDX file: it does not begin with two zero bytes", path=path)
    if raw[2] != UNSIGNED_BYTE:
        raise DataError(f"holds values of type 0x{raw[2]:02x}; only unsigned bytes (0x08) are read", path=path)
    axes = raw[3]
    if not axes or len(raw) < 4 + 4 * axes:
        raise DataError("is cut off within its header", path=path)
    return tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, 4 + 4 * axes, 4))
