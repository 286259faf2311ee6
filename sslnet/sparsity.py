"""How sparse a net's parameters are: per blob the elements, filters, channels, columns that are not all zero, and the FLOPs left.

A weight blob is a matrix of shape[0] rows and the product of its other sizes as columns, in a convolution with groups
one such matrix for each group. A filter is a row, a column is one place of a group's filters, a channel is all columns
that read one input channel (kernel_h * kernel_w of them; H * W behind a convolution for InnerProduct). Zero means
exactly zero. FLOPs left are those of the non-zero rows times the non-zero columns: what a product without the zero ones takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sslnet.kernels.jit import kernel, spread
from sslnet.kernels.threads import num_parts
from sslnet.layers.convolution import Convolution

if TYPE_CHECKING:
    from sslnet.blob import Blob
    from sslnet.net import Net


@dataclass(frozen=True)
class Kept:
    """So many of a total are not zero."""

    kept: int
    total: int

    @property
    def zero(self) -> int:
        return self.total - self.kept

    @property
    def fraction(self) -> float:
        """kept / total; 1 of nothing at all."""
        return self.kept / self.total if self.total else 1.0

    @property
    def sparsity(self) -> float:
        return 1.0 - self.fraction


@dataclass(frozen=True)
class LayerSparsity:
    """One learnable blob. ``filters``, ``channels``, ``columns`` are None for what is no weight matrix: biases, statistics."""

    name: str
    """As in ``Net.learnable``: conv1[0]."""
    layer: str
    blob: int
    type: str
    shape: tuple[int, ...]
    elements: Kept
    filters: Kept | None
    channels: Kept | None
    columns: Kept | None
    flops: Kept
    """Of one forward pass of the layer over the net's batch; 0 of 0 for all blobs but the layer's first."""


@dataclass(frozen=True)
class Matrix:
    """Which parts of a weight matrix are not zero.

    nonzero   number of elements
    rows      (groups, rows) bool
    columns   (groups, columns) bool
    """

    nonzero: int
    rows: np.ndarray
    columns: np.ndarray


def measure(net: Net) -> list[LayerSparsity]:
    """The sparsity of each learnable blob of a net, in the net's order. Reads the parameters once, changes nothing."""
    places = {id(layer): i for i, layer in enumerate(net.layers)}
    result = []
    for param in net.learnable:
        layer, array = param.layer, param.blob.data
        i = places[id(layer)]
        flops_of_layer = layer.flops(net.bottoms[i], net.tops[i])
        if array.ndim < 2 or not flops_of_layer:
            elements = Kept(int(np.count_nonzero(array)), array.size)
            filters = channels = columns = None
            flops = Kept(0, 0)
        else:
            groups, per_channel = _layout(layer.param, array.shape, net.bottoms[i])
            transposed = layer.param.inner_product_param.transpose
            matrix = nonzero_parts(array.T if transposed else array, groups)
            elements = Kept(matrix.nonzero, array.size)
            filters, columns = _kept(matrix.rows), _kept(matrix.columns)
            if isinstance(layer, Convolution) and layer.kept is not None:
                channels = _listed_channels(layer.kept // math.prod(layer.window.kernel), matrix.columns)
            else:
                channels = _kept(np.logical_or.reduce(matrix.columns.reshape(groups, -1, per_channel), axis=2))
            flops = Kept(0, 0) if param.index else _flops(flops_of_layer, matrix)
        result.append(
            LayerSparsity(
                param.name, layer.name, param.index, layer.TYPE, param.blob.shape,
                elements, filters, channels, columns, flops,
            )
        )  # fmt: skip
    return result


def nonzero_parts(weights: np.ndarray, groups: int = 1) -> Matrix:
    """The rows and columns that are not all zero.

    weights  (rows, ...)  float32 or float64; the axes behind the first are the columns
    groups   equal parts of the rows that are matrices of their own
    """
    matrix = np.ascontiguousarray(weights).reshape(weights.shape[0], -1)
    rows, columns = matrix.shape
    parts = num_parts()
    row_kept = np.zeros(rows, np.bool_)
    column_kept = np.zeros((parts, groups, columns), np.bool_)
    nonzero = np.zeros(parts, np.int64)
    spread(_scan, rows, columns, matrix, rows // groups, row_kept, column_kept, nonzero)
    return Matrix(int(nonzero.sum()), row_kept.reshape(groups, -1), np.logical_or.reduce(column_kept, axis=0))


@kernel
def _scan(i0, i1, thread, matrix, rows_per_group, row_kept, column_kept, nonzero):
    total = 0
    for i in range(i0, i1):
        row = matrix[i]
        seen = column_kept[thread, i // rows_per_group]
        count = 0
        for j in range(row.size):
            there = row[j] != 0
            count += there
            seen[j] |= there
        row_kept[i] = count > 0
        total += count
    nonzero[thread] = total


def _layout(param: Any, shape: Sequence[int], bottoms: Sequence[Blob]) -> tuple[int, int]:
    """(groups, columns of one input channel) of a weight blob."""
    if param.HasField("convolution_param"):
        return param.convolution_param.group, math.prod(shape[2:])
    if param.HasField("inner_product_param") and bottoms:
        bottom = bottoms[0]
        return 1, bottom.count_of(bottom.axis(param.inner_product_param.axis) + 1)
    return 1, 1


def _kept(flags: np.ndarray) -> Kept:
    return Kept(int(np.count_nonzero(flags)), flags.size)


def _listed_channels(channels: np.ndarray, columns: np.ndarray) -> Kept:
    """Channels of a convolution whose weights list their columns, from the channel (groups, columns) of each one."""
    present = [np.unique(own).size for own in channels]
    left = [np.unique(own[there]).size for own, there in zip(channels, columns, strict=True)]
    return Kept(sum(left), sum(present))


def _flops(flops: int, matrix: Matrix) -> Kept:
    """FLOPs of the kept rows times the kept columns, group by group, as a part of those of the whole layer."""
    kept = int((matrix.rows.sum(axis=1) * matrix.columns.sum(axis=1)).sum())
    return Kept(flops * kept // (matrix.rows.size * matrix.columns.shape[1]), flops)
