"""Convolutions with zeros: whole rows and columns of the weight matrix that are zero, or single weights.

    kept = find_kept(weights, groups)            which filters and columns are not zero throughout
    forward = plan_kept(geometry, kept)          kept filters x kept columns, then a dense product   (LOWERED_CCNMM)
    forward = plan_unstructured(geometry)        one weight at a time, from a lowered matrix         (LOWERED_CSRMM)
    forward = plan_unstructured(geometry, direct=True)    the same, from the padded image            (DIRECT_SCONV)
    forward.pack(weights, bias); forward.run(x, y)

    plan_kept_input_grad(geometry, kept)         pack(weights), run(dy, dx): overwrites dx
    plan_kept_weight_grad(geometry, kept)        run(x, dy, dw, db): accumulates into db, and into dw where it is kept

They take the place of the plans of ``kernels.conv`` and give the same values within rounding. Plans for a pattern read only
the weights of that pattern: what is not kept counts as zero. A pattern is data: another one compiles nothing, planning it
takes about a millisecond. Weights without structure are read anew by every pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sslnet.errors import ShapeError
from sslnet.kernels.conv_geometry import ConvGeometry
from sslnet.kernels.jit import kernel
from sslnet.kernels.vector import VectorUnit, vector_unit

if TYPE_CHECKING:
    from sslnet.kernels.conv_sparse_direct import DirectForward, LoweredForward
    from sslnet.kernels.conv_sparse_grad import KeptInputGrad, KeptWeightGrad
    from sslnet.kernels.conv_sparse_weights import KeptForward

__all__ = [
    "Kept",
    "find_kept",
    "hardly_zero",
    "keep_all",
    "plan_kept",
    "plan_kept_input_grad",
    "plan_kept_weight_grad",
    "plan_unstructured",
]


@dataclass(frozen=True, eq=False)
class Kept:
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

    def covers(self, other: Kept) -> bool:
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


def find_kept(weights: np.ndarray, groups: int = 1) -> Kept:
    """The pattern of C-contiguous weights (filters, ...): rows and columns of each group that are not zero throughout."""
    matrices = weights.reshape(groups, len(weights) // groups, -1)
    rows = np.zeros(matrices.shape[:2], np.uint8)
    columns = np.zeros((groups, matrices.shape[2]), np.uint8)
    _mark(matrices, rows, columns)
    return Kept(_places(rows), _places(columns), matrices.shape)


def _places(marks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of every line of marks the places that are not 0."""
    line, place = np.nonzero(marks)
    ends = np.searchsorted(line, np.arange(len(marks) + 1)).tolist()
    return tuple(place[a:b] for a, b in pairwise(ends))


def keep_all(geometry: ConvGeometry) -> Kept:
    """The pattern without a zero."""
    g = geometry
    filters, columns = np.arange(g.group_filters), np.arange(g.columns)
    return Kept((filters,) * g.groups, (columns,) * g.groups, (g.groups, g.group_filters, g.columns))


def plan_kept(geometry: ConvGeometry, kept: Kept, *, relu: bool = False, unit: VectorUnit | None = None) -> KeptForward:
    """The forward pass over kept filters and columns; the outputs of the other filters are their bias.

    relu   fused: negative outputs become 0
    """
    from sslnet.kernels.conv_sparse_filters import FilterForward, choose_blocks, takes
    from sslnet.kernels.conv_sparse_kept import PixelForward, choose_panels

    kept.check(geometry)
    unit = unit or vector_unit()
    if takes(geometry):
        blocks = choose_blocks(geometry, kept, unit)
        if blocks.cycles <= choose_panels(geometry, kept, unit)[2]:
            return FilterForward(geometry, kept, unit, relu=relu, blocks=blocks)
    return PixelForward(geometry, kept, unit, relu=relu)


def plan_kept_input_grad(geometry: ConvGeometry, kept: Kept, *, unit: VectorUnit | None = None) -> KeptInputGrad:
    """The gradient with respect to the input, from kept filters and columns."""
    from sslnet.kernels.conv_sparse_grad import KeptInputGrad

    kept.check(geometry)
    return KeptInputGrad(geometry, kept, unit or vector_unit())


def plan_kept_weight_grad(geometry: ConvGeometry, kept: Kept, *, unit: VectorUnit | None = None) -> KeptWeightGrad:
    """The gradient with respect to the kept weights, and to the bias of all filters."""
    from sslnet.kernels.conv_sparse_grad import KeptWeightGrad

    kept.check(geometry)
    return KeptWeightGrad(geometry, kept, unit or vector_unit())


def plan_unstructured(
    geometry: ConvGeometry, *, direct: bool = False, relu: bool = False, unit: VectorUnit | None = None
) -> DirectForward | LoweredForward:
    """The forward pass with the non-zero weights alone, wherever they are.

    direct   reads the padded image in place of a lowered matrix
    """
    from sslnet.kernels.conv_sparse_direct import DirectForward, LoweredForward

    if direct:
        return DirectForward(geometry, unit or vector_unit(), relu=relu)
    return LoweredForward(geometry, unit or vector_unit(), relu=relu)


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
