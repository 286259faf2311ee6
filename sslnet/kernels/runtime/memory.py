"""Aligned arrays and per-thread scratch."""

from __future__ import annotations

import math
import threading

import numpy as np
from numpy.typing import DTypeLike

ALIGNMENT = 64
SLACK = 64
"""Bytes that an aligned array owns behind its last element. No kernel here relies on it: what a kernel is given may be any
C-contiguous array, and nothing outside it is read or written."""


MOST = 1 << 62
"""Bytes of an array: NumPy takes no more for a number."""


def aligned_empty(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """An uninitialised C-contiguous array that starts at a multiple of 64 bytes and owns 64 bytes behind its end."""
    return _aligned(np.empty, shape, dtype)


def aligned_zeros(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """As aligned_empty, filled with zeros."""
    return _aligned(np.zeros, shape, dtype)


def scratch(slot: str, size: int, dtype: DTypeLike = np.float32) -> np.ndarray:
    """An aligned 1-D array of ``size`` elements with any content, the calling thread's own until it asks for ``slot`` again.

    The memory is kept and reused by every caller on this thread, so that plans which run one after the other share it.
    """
    dtype = np.dtype(dtype)
    need = size * dtype.itemsize
    return _buffer(slot, need)[0][:need].view(dtype)


def scratch_address(slot: str, size: int) -> int:
    """Where scratch(slot, size) of float32 begins, without making the array."""
    return _buffer(slot, 4 * size)[1]


def _buffer(slot: str, need: int) -> tuple[np.ndarray, int]:
    """The calling thread's bytes for the slot, at least as many as needed, and their address."""
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
