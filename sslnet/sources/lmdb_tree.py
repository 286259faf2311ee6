"""The B+ tree of an LMDB file: where the records lie.

Read here, not by the LMDB library, because that trusts the file: a damaged page makes it read outside of the map, which
kills the process without a word. Here each number is checked before it is followed. One walk over the tree also gives
every record by its index.

Pages are psize bytes and begin with 16 bytes: number (8), padding (2), flags (2), end of the pointers (2), begin of the
nodes (2). A page of the tree then has its pointers, 2 bytes each, to nodes: size or child (4), flags (2), key size (2), key,
value; a value that does not fit lies in pages of its own, and the node holds the number of the first (8). Pages 0 and 1 are
copies of the meta data, of which the one with the larger transaction number counts. All numbers are little-endian.

Ref: H. Chu, LMDB 0.9, mdb.c, structures MDB_page, MDB_node, MDB_meta, MDB_db (64-bit).
"""

from __future__ import annotations

import numpy as np
from numba import njit

MAGIC = 0xBEEFC0DE
VERSION = 1
HEADER = 16
BRANCH, LEAF = 1, 2
BIG_VALUE = 1
SMALLEST_RECORD = 10
"""Bytes of a node with empty key and value, and its pointer."""
DEEPEST = 32
EMPTY = 2**64 - 1
"""Page number of the root of an empty tree."""


def locate_records(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of all records are, in the order of their keys.

    data    (bytes of the file) uint8
    returns offsets (records) int64, sizes (records) int64
    raises  ValueError with a sentence, when the file is no LMDB, is cut off or damaged
    """
    page_size, meta = _newest_meta(data)
    last_page = _number(data, meta + 120, 8)
    if (last_page + 1) * page_size > len(data):
        raise ValueError(f"the database is cut off: it has {len(data)} of {(last_page + 1) * page_size} bytes")
    depth = _number(data, meta + 78, 2)
    entries = _number(data, meta + 104, 8)
    root = _number(data, meta + 112, 8)
    if root == EMPTY or not entries:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if not 1 <= depth <= DEEPEST or entries > len(data) // SMALLEST_RECORD or root > last_page:
        raise ValueError("the database is damaged: its meta page")
    offsets, sizes = np.empty(entries, np.int64), np.empty(entries, np.int64)
    found, page = _walk(data, page_size, last_page + 1, root, depth, offsets, sizes)
    if found < 0:
        raise ValueError(f"the database is damaged: page {page}")
    if found != entries:
        raise ValueError(f"the database is damaged: {found} of {entries} records are there")
    return offsets, sizes


def touch(data: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
    """Brings the values into memory. Other threads run meanwhile, which they would not if Python waited for the disk."""
    _touch(data, offsets, sizes)


def _newest_meta(data: np.ndarray) -> tuple[int, int]:
    """Page size, and where the newest meta data begins."""
    if len(data) < HEADER + 136 or not _is_meta(data, HEADER):
        raise ValueError("is not an LMDB (of a 64-bit little-endian machine)")
    page_size = _number(data, HEADER + 24, 4)
    if page_size < 512 or page_size > 65536 or page_size & (page_size - 1):
        raise ValueError("the database is damaged: its meta page")
    metas = [place for place in (HEADER, page_size + HEADER) if place + 136 <= len(data) and _is_meta(data, place)]
    return page_size, max(metas, key=lambda place: _number(data, place + 128, 8))


def _is_meta(data: np.ndarray, place: int) -> bool:
    return _number(data, place, 4) == MAGIC and _number(data, place + 4, 4) == VERSION


def _number(data: np.ndarray, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size].tobytes(), "little")


@njit(nogil=True, cache=True)
def _read(data, place, size):
    number = 0
    for i in range(size):
        number |= int(data[place + i]) << (8 * i)
    return number


@njit(nogil=True, cache=True)
def _walk(data, page_size, pages, root, depth, offsets, sizes):
    """Overwrites offsets and sizes, depth first; returns (number of records, 0), or (-1, the damaged page)."""
    path = np.zeros(depth, np.int64)
    slots = np.zeros(depth, np.int64)
    path[0] = root
    level, found, visited = 0, 0, 0
    while level >= 0:
        page = path[level]
        base = page * page_size
        end = _read(data, base + 12, 2)
        keys = (end - HEADER) >> 1
        leaf = level == depth - 1
        if slots[level] == 0:
            visited += 1
            if (
                visited > pages
                or _read(data, base + 10, 2) & 15 != (LEAF if leaf else BRANCH)
                or end < HEADER
                or end > page_size
            ):
                return -1, page
        if slots[level] >= keys:
            level -= 1
            continue
        node = _read(data, base + HEADER + 2 * slots[level], 2)
        slots[level] += 1
        if node < end or node + 8 > page_size:
            return -1, page
        size = _read(data, base + node, 4)
        flags = _read(data, base + node + 4, 2)
        value = node + 8 + _read(data, base + node + 6, 2)
        if not leaf:
            child = size | flags << 32
            if child >= pages:
                return -1, page
            level += 1
            path[level] = child
            slots[level] = 0
            continue
        offset = base + value
        if flags == BIG_VALUE:
            if value + 8 > page_size:
                return -1, page
            first = _read(data, offset, 8)
            if first < 2 or first >= pages:  # looking at that page as well would read the whole file
                return -1, page
            offset = first * page_size + HEADER
            if size > pages * page_size - offset:
                return -1, page
        elif flags != 0 or value + size > page_size:
            return -1, page
        if found == len(offsets):
            return -1, page
        offsets[found] = offset
        sizes[found] = size
        found += 1
    return found, 0


@njit(nogil=True, cache=True)
def _touch(data, offsets, sizes):
    total = 0
    for i in range(len(offsets)):
        for j in range(offsets[i], offsets[i] + sizes[i], 4096):
            total += data[j]
        if sizes[i] > 0:
            total += data[offsets[i] + sizes[i] - 1]
    return total
