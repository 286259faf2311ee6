"""Reads the B+ tree of an LMDB file, to locate its records.

The LMDB library trusts the file: on a damaged page it reads outside its memory map, and the process ends with a
segmentation fault. This module checks each number before it uses it. One walk over the tree, level by level, also gives
access to every record by its index.

A page has ``psize`` bytes and begins with a header of 16 bytes: number (8), padding (2), flags (2), end of the pointers
(2), start of the nodes (2). In a page of the tree, the header is followed by pointers of 2 bytes each to nodes. A node is:
size or child (4), flags (2), key size (2), key, value. A value that does not fit is stored in pages of its own, and the
node contains the number of the first of them (8). Pages 0 and 1 are copies of the meta data; the copy with the larger
transaction number is valid. All numbers are little-endian.

Ref: H. Chu, LMDB 0.9, mdb.c, structures MDB_page, MDB_node, MDB_meta, MDB_db (64-bit).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sslnet.kernels.runtime.compiler import exact_kernel
from sslnet.sources.stable_file import StableFile

MAGIC = 0xBEEFC0DE
VERSION = 1
HEADER = 16
BRANCH, LEAF = 1, 2
BIG_VALUE = 1
SMALLEST_RECORD = 10
"""Number of bytes of a node with empty key and value, and of its pointer."""
DEEPEST = 32
LARGEST_PAGE = 1 << 16
META = 136
"""Number of bytes of the meta data."""
EMPTY = 2**64 - 1
"""Page number of the root of an empty tree."""
BLOCK = 1 << 20
"""Number of bytes of pages in memory at a time."""


def locate_records(file: StableFile) -> tuple[np.ndarray, np.ndarray]:
    """Locates the values of all records, in the order of their keys.

    returns offsets in the file (records) int64, sizes in bytes (records) int64
    raises  ValueError, whose text is a sentence, if the file is not an LMDB, is cut off or damaged
    """
    size = min(file.size, LARGEST_PAGE + HEADER + META)
    head, _ = file.read(np.zeros(1, np.int64), np.array([size]))
    page_size, meta = _newest_meta(head)
    pages = _number(head, meta + 120, 8) + 1
    if pages * page_size > file.size:
        raise ValueError(f"the database is cut off: it has {file.size} of {pages * page_size} bytes")
    depth = _number(head, meta + 78, 2)
    entries = _number(head, meta + 104, 8)
    root = _number(head, meta + 112, 8)
    if root == EMPTY or not entries:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if not 1 <= depth <= DEEPEST or entries > file.size // SMALLEST_RECORD or root >= pages:
        raise ValueError("the database is damaged: its meta page")
    level = np.array([root])
    visited = 1
    for _ in range(depth - 1):
        found = []
        for numbers, data, places in _blocks(file, level, page_size):
            children = np.empty(min(pages - visited, len(numbers) * page_size // 2), np.int64)
            count, damaged = _children(data, places, numbers, page_size, pages, children)
            if count < 0:
                raise ValueError(f"the database is damaged: page {damaged}")
            visited += count
            found.append(children[:count].copy())
        level = np.concatenate(found)
        if not len(level):
            raise ValueError("the database is damaged: a page without entries")
    offsets, sizes = np.empty(entries, np.int64), np.empty(entries, np.int64)
    done = 0
    for numbers, data, places in _blocks(file, level, page_size):
        count, damaged = _values(data, places, numbers, page_size, pages, offsets[done:], sizes[done:])
        if count < 0:
            raise ValueError(f"the database is damaged: page {damaged}")
        done += count
    if done != entries:
        raise ValueError(f"the database is damaged: {done} of {entries} records are there")
    return offsets, sizes


def _blocks(file: StableFile, level: np.ndarray, page_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Reads the pages of a level in blocks: for each block the page numbers, the bytes, and the place of each page in them."""
    count = BLOCK // page_size
    room = np.empty(2 * BLOCK, np.uint8)
    for first in range(0, len(level), count):
        numbers = level[first : first + count]
        yield numbers, *file.read(numbers * page_size, np.full(len(numbers), page_size), room)


def _newest_meta(head: np.ndarray) -> tuple[int, int]:
    """Page size, and offset of the newest meta data."""
    if len(head) < HEADER + META or not _is_meta(head, HEADER):
        raise ValueError("is not an LMDB (of a 64-bit little-endian machine)")
    page_size = _number(head, HEADER + 24, 4)
    if page_size < 512 or page_size > LARGEST_PAGE or page_size & (page_size - 1):
        raise ValueError("the database is damaged: its meta page")
    metas = [place for place in (HEADER, page_size + HEADER) if place + META <= len(head) and _is_meta(head, place)]
    return page_size, max(metas, key=lambda place: _number(head, place + 128, 8))


def _is_meta(head: np.ndarray, place: int) -> bool:
    return _number(head, place, 4) == MAGIC and _number(head, place + 4, 4) == VERSION


def _number(data: np.ndarray, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size].tobytes(), "little")


@exact_kernel
def _read(data: np.ndarray, place: int, size: int) -> int:
    """The little-endian number of ``size`` bytes at ``place``."""
    number = 0
    for i in range(size):
        number |= int(data[place + i]) << (8 * i)
    return number


@exact_kernel
def _pointers_end(data: np.ndarray, page: int, page_size: int, kind: int) -> int:
    """End of the node pointers of a page, relative to the page; -1 if the page is damaged or not of this kind."""
    end: int = _read(data, page + 12, 2)
    if _read(data, page + 10, 2) & 15 != kind or end < HEADER or end > page_size:
        return -1
    return end


@exact_kernel
def _children(
    data: np.ndarray, places: np.ndarray, numbers: np.ndarray, page_size: int, pages: int, children: np.ndarray
) -> tuple[int, int]:
    """Overwrites children with the child pages of a block of pages; returns (their number, 0), or (-1, the damaged page)."""
    found = 0
    for i in range(len(numbers)):
        page = places[i]
        end = _pointers_end(data, page, page_size, BRANCH)
        if end < 0:
            return -1, numbers[i]
        for pointer in range(page + HEADER, page + end - 1, 2):
            node = _read(data, pointer, 2)
            if node < end or node + 8 > page_size:
                return -1, numbers[i]
            child = _read(data, page + node, 4) | _read(data, page + node + 4, 2) << 32
            if child >= pages or found == len(children):
                return -1, numbers[i]
            children[found] = child
            found += 1
    return found, 0


@exact_kernel
def _values(
    data: np.ndarray,
    places: np.ndarray,
    numbers: np.ndarray,
    page_size: int,
    pages: int,
    offsets: np.ndarray,
    sizes: np.ndarray,
) -> tuple[int, int]:
    """Overwrites offsets and sizes with the places of the records in a block of leaf pages; returns (number of records,
    0), or (-1, the damaged page)."""
    found = 0
    for i in range(len(numbers)):
        page = places[i]
        end = _pointers_end(data, page, page_size, LEAF)
        if end < 0:
            return -1, numbers[i]
        for pointer in range(page + HEADER, page + end - 1, 2):
            node = _read(data, pointer, 2)
            if node < end or node + 8 > page_size or found == len(offsets):
                return -1, numbers[i]
            size = _read(data, page + node, 4)
            flags = _read(data, page + node + 4, 2)
            value = node + 8 + _read(data, page + node + 6, 2)
            offset = numbers[i] * page_size + value
            if flags == BIG_VALUE:
                if value + 8 > page_size:
                    return -1, numbers[i]
                first = _read(data, page + value, 8)
                if (
                    first < 2 or first >= pages
                ):  # the page itself is not read: checking all of them would read the whole file
                    return -1, numbers[i]
                offset = first * page_size + HEADER
                if size > pages * page_size - offset:
                    return -1, numbers[i]
            elif flags != 0 or value + size > page_size:
                return -1, numbers[i]
            offsets[found] = offset
            sizes[found] = size
            found += 1
    return found, 0
