"""Which rows and columns of a convolution's weight matrix are not zero throughout."""

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
    """Which rows and columns of a convolution's weight matrix take part, for each conv group.

    filters   a group: sorted int64, counted within the group
    columns   a group: sorted int64, of channels * kernel_h * kernel_w of the group
    shape     (groups, filters of a group, columns) of the whole
    """

    filters: tuple[np.ndarray, ...]
    columns: tuple[np.ndarray, ...]
    shape: tuple[int, int, int]

    @cached_property
    def weights(self) -> int:
        """Weights at a kept row and a kept column."""
        return sum(len(f) * len(c) for f, c in zip(self.filters, self.columns, strict=True))

    @property
    def share(self) -> float:
        """Kept weights of all weights."""
        return self.weights / int(np.prod(self.shape))

    def covers(self, other: SparsityPattern) -> bool:
        """Whether all that ``other`` keeps is kept here."""
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
"""Weights looked at to tell whether hardly any is zero."""


def hardly_zero(weights: np.ndarray, few: float = 0.1) -> bool:
    """Whether so few weights, less than that part, are zero that rows and columns of them need not be looked for."""
    flat = weights.reshape(-1)
    # A step that is odd meets all columns of all rows in turn, in the usual sizes.
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
    """Of every line of marks the places that are not 0."""
    line, place = np.nonzero(marks)
    ends = np.searchsorted(line, np.arange(len(marks) + 1)).tolist()
    return tuple(place[a:b] for a, b in pairwise(ends))


def keep_all(geometry: ConvGeometry) -> SparsityPattern:
    """The pattern without a zero."""
    g = geometry
    filters, columns = np.arange(g.group_filters), np.arange(g.columns)
    return SparsityPattern((filters,) * g.groups, (columns,) * g.groups, (g.groups, g.group_filters, g.columns))


@kernel
def _mark(matrices, rows, columns):
    """rows[g, f] = 1 and columns[g, k] = 1 where matrices[g, f, k] is not zero; the others stay."""
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
