"""Aligned arrays and per-thread scratch."""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import DTypeLike

ALIGNMENT = 64
SLACK = 64
"""Bytes that an aligned array owns after its last element. No kernel relies on them: a kernel takes any C-contiguous
array and reads or writes nothing outside it."""


MOST = 1 << 62
"""The most bytes of an array; NumPy accepts no larger size."""


def aligned_empty(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An uninitialised C-contiguous array that starts at a multiple of 64 bytes and owns 64 bytes after its end."""
    return _aligned(np.empty, shape, dtype)


def aligned_zeros(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An array as from aligned_empty, filled with zeros."""
    return _aligned(np.zeros, shape, dtype)


def scratch(slot: str, size: int, dtype: DTypeLike = np.float32) -> np.ndarray:
    """An aligned, uninitialised 1-D array of ``size`` elements, valid until the calling thread asks for ``slot`` again.

    All callers on a thread reuse the memory, so that plans which run one after the other share it.
    """
    dtype = np.dtype(dtype)
    need = size * dtype.itemsize
    return _buffer(slot, need)[0][:need].view(dtype)


def scratch_address(slot: str, size: int) -> int:
    """The address of scratch(slot, size) of float32, without making the array."""
    return _buffer(slot, 4 * size)[1]


def _buffer(slot: str, need: int) -> tuple[np.ndarray, int]:
    """The calling thread's buffer of at least ``need`` bytes for the slot, and its address."""
    buffers: dict[str, tuple[np.ndarray, int]] = _local.__dict__
    buffer = buffers.get(slot)
    if buffer is None or buffer[0].size < need:
        array = aligned_empty(need, np.uint8)
        buffer = buffers[slot] = array, array.ctypes.data
    return buffer


def _aligned(make, shape, dtype) -> np.ndarray:
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size > MOST:
        raise MemoryError(f"{size} bytes for an array of {' x '.join(map(str, shape))} numbers")
    raw = make(size + ALIGNMENT + SLACK, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


_local = threading.local()
