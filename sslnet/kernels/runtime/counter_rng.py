"""Random bits as a function of key and counter, so that they do not depend on the thread that computes an element."""

from __future__ import annotations

import numpy as np

from sslnet.kernels.runtime.jit import kernel

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@kernel
def random_bits(key, counter):
    """32 random bits, as uint64, for a uint64 key and a uint64 counter.

    The top half of output number ``counter`` of the generator SplitMix64 started at ``key``.
    Ref: Steele, Lea, Flood 2014, fig. 14 with the constants of its reference code
    """
    z = key + counter * _GAMMA
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return (z ^ (z >> _31)) >> _32


def draw_key(generator: np.random.Generator) -> np.uint64:
    """A key for random_bits."""
    return np.uint64(generator.integers(0, 2**64, dtype=np.uint64))
