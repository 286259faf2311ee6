"""Micro-kernels called directly: what stands for their arguments, and what shows that they write nothing else."""

import ctypes

import numpy as np

from sslnet.kernels.runtime.memory import aligned_empty

CANARY = np.float32(-12345.5)


def call(tile, *arguments):
    """Calls the C function at an address with int64; an array stands for its address."""
    numbers = [a.ctypes.data if isinstance(a, np.ndarray) else int(a) for a in arguments]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(numbers))(tile)(*numbers)


def normal(*shape, seed=0):
    """Normal float32, aligned."""
    values = aligned_empty(shape)
    values[...] = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return values


def canaries(*shape):
    """An aligned array in which everything is the canary."""
    values = aligned_empty(shape)
    values[...] = CANARY
    return values


def close(actual, expected):
    """Within 1e-5 of the largest magnitude, canaries in their places."""
    expected = np.asarray(expected)
    untouched = expected == CANARY
    assert (actual[untouched] == CANARY).all(), "written where nothing should be"
    expected = np.where(untouched, 0, expected)
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(np.where(untouched, 0, actual), expected, rtol=0, atol=1e-5 * scale)


def int64(*numbers):
    return np.array(numbers, np.int64)
