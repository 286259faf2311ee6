"""memory: alignment, and scratch that belongs to one thread."""

import threading

import numpy as np
import pytest

from sslnet.kernels.runtime.memory import SLACK, aligned_empty, aligned_zeros, scratch


@pytest.mark.parametrize("shape", [(), 5, (3, 7), (0, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_aligned_array_starts_on_64_bytes_and_owns_the_slack(shape, dtype):
    array = aligned_empty(shape, dtype)
    assert array.shape == (shape if isinstance(shape, tuple) else (shape,))
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    base = array
    while base.base is not None:
        base = base.base
    assert array.size == 0 or array.ctypes.data % 64 == 0
    assert array.ctypes.data + array.nbytes + SLACK <= base.ctypes.data + base.nbytes


def test_aligned_zeros_are_zero():
    assert not aligned_zeros((100, 3)).any()


def test_scratch_is_kept_and_grows():
    first = scratch("test", 100)
    assert first.ctypes.data % 64 == 0
    assert scratch("test", 40).ctypes.data == first.ctypes.data
    assert scratch("test", 100_000).size == 100_000
    assert not np.shares_memory(scratch("test", 10), scratch("other", 10))


def test_scratch_differs_between_threads():
    mine = scratch("test", 100)
    others = []
    thread = threading.Thread(target=lambda: others.append(scratch("test", 100)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, others[0])


def test_array_beyond_all_memory_is_told_as_such():
    with pytest.raises(MemoryError, match="18446744073709551616 bytes for an array of 4611686018427387904 numbers"):
        aligned_zeros(1 << 62)
