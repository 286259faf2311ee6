"""The record at each place of an endless run, and the random numbers of each place.

Everything here is a function of (seed, layer, place) only, so that a run can be resumed at any place: a saved place
determines the same records, the same shuffling and the same random crops.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, layer: str, use: str, index: int) -> np.random.Generator:
    """A new stream of random numbers, named by its use and the batch or epoch that it is for."""
    key = hashlib.blake2b(f"{seed}/{layer}/{use}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little"), counter=[0, 0, 0, index]))


class Order:
    """The records 0 .. count - 1, repeated without end; if shuffled, in a new random order in each epoch."""

    def __init__(
        self, count: int, *, shuffle: bool = False, seed: int = 0, layer: str = "", use: str = "shuffle"
    ) -> None:
        self.count = count
        self._shuffle = shuffle
        self._stream = (seed, layer, use)
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)

    def indices(self, position: int, size: int) -> np.ndarray:
        """Record numbers at the places position .. position + size - 1, counted over all epochs: (size) int64."""
        places = np.arange(position, position + size)
        if not self._shuffle:
            return places % self.count
        result = np.empty(size, np.int64)
        for epoch in range(position // self.count, (position + size - 1) // self.count + 1):
            here = places // self.count == epoch
            result[here] = self.permutation(epoch)[places[here] % self.count]
        return result

    def permutation(self, epoch: int) -> np.ndarray:
        """The order of one epoch: (count) int64."""
        if not self._shuffle:
            return np.arange(self.count)
        if epoch != self._epoch:
            self._permutation = generator(*self._stream, epoch).permutation(self.count)
            self._epoch = epoch
        return self._permutation
