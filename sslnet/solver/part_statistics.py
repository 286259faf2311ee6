"""PartStatistics: the running statistics (BatchNorm's) of each part of the whole batch.

Each part has its own batches, and so its own running sums. They are linear in the batches' values, so the mean of the
parts' sums is what one would keep that saw the mean of the values in every iteration. They do not act on training: the
mean is taken where they are read, in tests and snapshots.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from sslnet.errors import WeightsError
from sslnet.kernels.optim.tree_sum import tree_sum
from sslnet.net.net import Net
from sslnet.ranks.group import Group


class PartStatistics:
    """The running statistics of a net's layers, for each of the parts that this rank computes.

    own       (parts of this rank, numbers) the statistics of each, flat
    everyone  (all parts, numbers), within ``averaged``; None if the net has none
    """

    def __init__(self, net: Net, group: Group, parts: int) -> None:
        self._blobs = [blob for layer in net.layers for blob in layer.statistics()]
        self._group = group
        self.own = np.zeros((parts, sum(blob.count for blob in self._blobs)), net.dtype)
        self.everyone: np.ndarray | None = None
        self._fresh = True
        """Whether the statistics of the parts have yet to be taken from the blobs."""

    def take(self, part: int) -> None:
        """Makes the statistics in the blobs those of a part of this rank."""
        self._begin()
        if len(self.own) > 1:
            self._write(self.own[part])

    def put(self, part: int) -> None:
        """Keeps the statistics in the blobs as those of a part."""
        if self._blobs:
            self._read(self.own[part])

    def restore(self, everyone: np.ndarray | None) -> None:
        """Sets the statistics of all parts: (parts, numbers); None: to those in the blobs, at their next use.

        raises WeightsError if they do not fit
        """
        self._fresh = everyone is None
        if everyone is None:
            return
        if everyone.shape != (len(self.own) * self._group.size, self.own.shape[1]):
            raise WeightsError("the statistics of the parts of the batch do not fit the net")
        self.own[:] = everyone[self._group.rank * len(self.own) :][: len(self.own)]
        self._write(self.own[0])

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the blobs hold the mean over all parts. What the block changes there, it changes for all
        parts. All ranks enter it."""
        if not self._blobs or self.everyone is not None:  # within another one
            yield
            return
        mean = self._average()
        try:
            yield
        finally:
            after = self._read(np.empty_like(mean))
            changed = after != mean
            self.own[:, changed] = after[changed]
            self.everyone = None
            self._write(self.own[0])

    def settle(self) -> None:
        """Sets the statistics of all parts to their mean."""
        if self._blobs:
            self.own[:] = self._average()
            self.everyone = None

    def _average(self) -> np.ndarray:
        self._begin()
        self.everyone = self._group.gather(self.own).reshape(-1, self.own.shape[1])
        mean: np.ndarray = tree_sum(self.everyone) / self.own.dtype.type(len(self.everyone))
        self._write(mean)
        return mean

    def _begin(self) -> None:
        if self._fresh:
            self._fresh = False
            for row in self.own:
                self._read(row)

    def _write(self, values: np.ndarray) -> None:
        place = 0
        for blob in self._blobs:
            blob.data[...] = values[place : place + blob.count].reshape(blob.shape)
            place += blob.count

    def _read(self, values: np.ndarray) -> np.ndarray:
        place = 0
        for blob in self._blobs:
            values[place : place + blob.count] = blob.data.reshape(-1)
            place += blob.count
        return values
