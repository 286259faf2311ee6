"""Sparsity patterns: the rows and columns of a convolution's weight matrix that hold non-zero weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from sslnet.errors import ShapeError
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.runtime.jit import kernel


@dataclass(frozen=True, eq=False)
class SparsityPattern:
    """The kept rows and columns of a convolution's weight matrix, for each conv group.

    filters   one array a group: sorted int64 rows, counted within the group
    columns   one array a group: sorted int64 columns, of the channels * kernel_h * kernel_w of the group
    shape     (groups, filters of a group, columns) of the whole weight matrix
    """

    filters: tuple[np.ndarray, ...]
    columns: tuple[np.ndarray, ...]
    shape: tuple[int, int, int]

    @cached_property
    def weights(self) -> int:
        """The number of weights in a kept row and a kept column."""
        return sum(len(f) * len(c) for f, c in zip(self.filters, self.columns, strict=True))

    @property
    def share(self) -> float:
        """Kept weights as a fraction of all weights."""
        return self.weights / int(np.prod(self.shape))

    def covers(self, other: SparsityPattern) -> bool:
        """Whether this pattern keeps all rows and columns that ``other`` keeps."""
        if self.share == 1:
            return self.shape == other.shape
        pairs = [*zip(self.filters, other.filters), *zip(self.columns, other.columns)]
        return self.shape == other.shape and all(np.isin(theirs, ours).all() for ours, theirs in pairs)

    def check(self, geometry: ConvGeometry) -> None:
        """raises ShapeError unless this is a pattern of the geometry's weights."""
        shape = (geometry.groups, geometry.group_filters, geometry.columns)
        if self.shape != shape:
            raise ShapeError(f"the pattern is of weights (groups, filters, columns) {self.shape}, here are {shape}")


SAMPLE = 4096
"""The number of weights that hardly_zero samples, about."""


def hardly_zero(weights: np.ndarray, few: float = 0.1) -> bool:
    """Whether less than the fraction ``few`` of sampled weights is zero, so that a search for zero rows is not
    worthwhile."""
    flat = weights.reshape(-1)
    # An odd step samples all columns in turn, in the usual sizes.
    sample = flat[:: max(flat.size // SAMPLE, 1) | 1]
    return bool(np.count_nonzero(sample) > (1 - few) * sample.size)


def find_kept(weights: np.ndarray, groups: int = 1) -> SparsityPattern:
    """The pattern of C-contiguous weights (filters, ...): rows and columns of each group that are not zero throughout."""
    matrices = weights.reshape(groups, len(weights) // groups, -1)
    rows = np.zeros(matrices.shape[:2], np.uint8)
    columns = np.zeros((groups, matrices.shape[2]), np.uint8)
    _mark(matrices, rows, columns)
    return SparsityPattern(_places(rows), _places(columns), matrices.shape)


def _places(marks: np.ndarray) -> tuple[np.ndarray, ...]:
    """The positions of the non-zero marks, one array for each line."""
    line, place = np.nonzero(marks)
    ends = np.searchsorted(line, np.arange(len(marks) + 1)).tolist()
    return tuple(place[a:b] for a, b in pairwise(ends))


def keep_all(geometry: ConvGeometry) -> SparsityPattern:
    """The pattern that keeps all weights."""
    g = geometry
    filters, columns = np.arange(g.group_filters), np.arange(g.columns)
    return SparsityPattern((filters,) * g.groups, (columns,) * g.groups, (g.groups, g.group_filters, g.columns))


@kernel
def _mark(matrices, rows, columns):
    """Sets rows[g, f] = 1 and columns[g, k] = 1 where matrices[g, f, k] is not zero; other marks are unchanged."""
    for g in range(matrices.shape[0]):
        marks = columns[g]
        for f in range(matrices.shape[1]):
            line = matrices[g, f]
            found = 0
            for k in range(line.size):
                there = 1 if line[k] != 0 else 0
                marks[k] |= there
                found |= there
            rows[g, f] = found
