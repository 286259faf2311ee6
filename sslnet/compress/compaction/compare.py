"""Compares two nets on the same data: the largest difference of their outputs.

For an output that is a loss or a measure, the blobs that it is computed from are compared instead, by their names in the
definition, because an accuracy may jump at a tie, and a loss averages differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslnet.net.input_layers import copy_sources, written_name
from sslnet.net.net import Net


@dataclass(frozen=True)
class BlobDifference:
    name: str
    absolute: float
    """The largest difference of two values."""
    largest: float
    """The largest magnitude of the first net's values."""

    @property
    def relative(self) -> float:
        """absolute / largest; infinite where only the second has values, or one is not a number."""
        if np.isnan(self.absolute):
            return float("inf")
        return self.absolute / self.largest if self.largest else (float("inf") if self.absolute else 0.0)


@dataclass(frozen=True)
class Difference:
    """The result of a comparison of two nets."""

    inputs: str
    """The inputs of both nets: "data of the net" or "random numbers"."""
    blobs: list[BlobDifference]

    @property
    def absolute(self) -> float:
        return max((blob.absolute for blob in self.blobs), default=0.0)

    @property
    def relative(self) -> float:
        """The largest of the blobs' relative differences."""
        return max((blob.relative for blob in self.blobs), default=0.0)


def compare(first: Net, second: Net, inputs: str) -> Difference:
    """Runs both nets forward, the second on the data of the first, and compares their outputs."""
    names = compared_blobs(first)
    before = {name: array.copy() for name, array in first.forward(names).items() if name in names}
    copy_sources(first, second)
    after = second.forward(names)
    return Difference(inputs, [blob_difference(name, before[name], after[name]) for name in names])


def compared_blobs(net: Net) -> list[str]:
    """Names of the blobs to compare: outputs, but for losses and measures the blobs they read, without raw data."""
    makers = {name: i for i, tops in enumerate(net.top_names) for name in tops}
    names: dict[str, None] = {}
    for output in net.outputs:
        layer = net.layers[makers[output]]
        if layer.SHRINKS or layer.IS_SOURCE:
            names[output] = None
            continue
        for bottom in net.bottom_names[makers[output]]:
            name = written_name(net, bottom)
            if not net.layers[makers[name]].IS_SOURCE:
                names[name] = None
    return list(names)


def blob_difference(name: str, before: np.ndarray, after: np.ndarray) -> BlobDifference:
    """The difference between two arrays; NaN if their shapes differ."""
    if before.shape != after.shape:
        return BlobDifference(name, float("nan"), float(np.abs(before).max(initial=0.0)))
    absolute = float(np.abs(before.astype(np.float64) - after).max(initial=0.0))
    return BlobDifference(name, absolute, float(np.abs(before).max(initial=0.0)))
