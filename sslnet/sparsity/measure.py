"""Measures the sparsity of a net's parameters: for each blob the non-zero elements, filters, channels, columns and blocks,
and the remaining parameters and FLOPs; for a net in training also coupled groups and the regularisation terms of the loss.

A weight blob is viewed as a matrix of shape[0] rows and the product of its other sizes as columns; a convolution with
groups has one such matrix for each group. A filter is a row; a column is one position in a group's filters; a channel is
all columns that read one input channel (kernel_h * kernel_w columns; H * W for an InnerProduct after a convolution); a
block is a tile that the net declares. Zero means exactly zero. Remaining parameters and FLOPs are those of a dense product
of the non-zero rows and non-zero columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sslnet.kernels.runtime.jit import kernel, spread
from sslnet.kernels.runtime.threads import num_parts
from sslnet.layers.convolution import Convolution
from sslnet.sparsity.groups import as_tiles, block_tiles

if TYPE_CHECKING:
    from sslnet.blob import Blob
    from sslnet.layers.base import Layer
    from sslnet.net.net import Net
    from sslnet.net.parameters import Param


@dataclass(frozen=True)
class NonZero:
    """Number of non-zero items (``kept``) out of ``total``."""

    kept: int
    total: int

    @property
    def zero(self) -> int:
        return self.total - self.kept

    @property
    def fraction(self) -> float:
        """kept / total; 1 if total is 0."""
        return self.kept / self.total if self.total else 1.0

    @property
    def sparsity(self) -> float:
        return 1.0 - self.fraction


@dataclass(frozen=True)
class NonZeroBlocks(NonZero):
    """Number of non-zero tiles of height x width, declared by BLOCK, FILTER_2D or block_group_lasso."""

    height: int
    width: int


@dataclass(frozen=True)
class LayerSparsity:
    """Sparsity of one learnable blob. ``filters``, ``channels`` and ``columns`` are None unless it is a weight matrix."""

    name: str
    """Parameter name as in ``Net.learnable``, for example conv1[0]."""
    layer: str
    blob: int
    type: str
    shape: tuple[int, ...]
    elements: NonZero
    filters: NonZero | None
    channels: NonZero | None
    columns: NonZero | None
    flops: NonZero
    """FLOPs of one forward pass of the layer over the net's batch; 0 of 0 for all blobs but the layer's first."""
    parameters: NonZero
    """Weights in non-zero rows and columns; biases of non-zero rows; all values of any other blob."""
    blocks: tuple[NonZeroBlocks, ...] = ()
    """Non-zero tiles of each size that the net declares for the blob."""
    group_lasso: float | None = None
    """Penalty of the blob in the loss, without coupled groups; None without a penalty or a solver."""
    weight_decay: float | None = None
    """Weight decay term of the blob in the loss; None without a solver."""

    @property
    def regularisation(self) -> float | None:
        """Sum of weight decay and penalty; None without a solver."""
        return None if self.weight_decay is None else self.weight_decay + (self.group_lasso or 0.0)


@dataclass(frozen=True)
class CoupledSparsity:
    """Sparsity of coupled groups: groups that span several layers, one for each class of joined channels.

    name     name of the layer that requested the groups
    groups   number of non-zero groups
    makers   names of the layers whose filters, biases, Scale or Bias values the groups include
    readers  names of the layers whose weights that read the channels the groups include (NEURON)
    """

    name: str
    groups: NonZero
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    group_lasso: float


@dataclass(frozen=True)
class Sparsity:
    """Sparsity of a net in training: each learnable blob, and the coupled groups.

    sought  whether the run seeks or keeps zeros, by a penalty or frozen weights
    """

    layers: list[LayerSparsity]
    coupled: list[CoupledSparsity]
    sought: bool


@dataclass(frozen=True)
class Matrix:
    """Non-zero parts of a weight matrix.

    nonzero   number of non-zero elements
    rows      (groups, rows) bool: not all zero
    columns   (groups, columns) bool: not all zero
    """

    nonzero: int
    rows: np.ndarray
    columns: np.ndarray


def measure(net: Net) -> list[LayerSparsity]:
    """Measures the sparsity of each learnable blob of a net, in the net's order; changes nothing."""
    places = {id(layer): i for i, layer in enumerate(net.layers)}
    matrices: dict[int, Matrix] = {}
    return [_measured(net, param, places[id(param.layer)], matrices) for param in net.learnable]


def _measured(net: Net, param: Param, i: int, matrices: dict[int, Matrix]) -> LayerSparsity:
    """Sparsity of one blob of layer i. matrices: weight matrices measured so far, by layer number  [adds to matrices]"""
    layer, array = param.layer, param.blob.data
    flops_of_layer = layer.flops(net.bottoms[i], net.tops[i])
    filters = channels = columns = None
    flops = NonZero(0, 0)
    if array.ndim < 2 or not flops_of_layer:
        elements = NonZero(int(np.count_nonzero(array)), array.size)
        rows = matrices[i].rows if i in matrices and param.index == 1 else None
        parameters = _kept(rows) if rows is not None and rows.size == array.size else NonZero(array.size, array.size)
    else:
        groups, per_channel = _layout(layer.param, array.shape, net.bottoms[i])
        matrix = nonzero_parts(_outputs_first(layer, array, groups), groups)
        elements = NonZero(matrix.nonzero, array.size)
        parameters = NonZero(int((matrix.rows.sum(axis=1) * matrix.columns.sum(axis=1)).sum()), array.size)
        filters, columns = _kept(matrix.rows), _kept(matrix.columns)
        if isinstance(layer, Convolution) and layer.kept is not None:
            channels = _listed_channels(layer.kept // math.prod(layer.window.kernel), matrix.columns)
        else:
            channels = _kept(np.logical_or.reduce(matrix.columns.reshape(groups, -1, per_channel), axis=2))
        if param.index == 0:
            matrices[i] = matrix
            flops = NonZero(flops_of_layer * parameters.kept // parameters.total, flops_of_layer)
    blocks = tuple(_blocks(array, *tile) for tile in block_tiles(param))
    return LayerSparsity(
        param.name, layer.name, param.index, layer.TYPE, param.blob.shape,
        elements, filters, channels, columns, flops, parameters, blocks,
    )  # fmt: skip


def _blocks(array: np.ndarray, height: int, width: int) -> NonZeroBlocks:
    there = as_tiles(np.asarray(array != 0), height, width).any(axis=(1, 3))
    return NonZeroBlocks(int(np.count_nonzero(there)), there.size, height, width)


def nonzero_parts(weights: np.ndarray, groups: int = 1) -> Matrix:
    """Finds the rows and columns that are not all zero.

    weights  (rows, ...)  float32 or float64; the axes after the first form the columns
    groups   number of equal bands of rows that are separate matrices
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
def _scan(
    i0: int,
    i1: int,
    thread: int,
    matrix: np.ndarray,
    rows_per_group: int,
    row_kept: np.ndarray,
    column_kept: np.ndarray,
    nonzero: np.ndarray,
) -> None:
    """Counts the nonzero values of the rows [i0, i1), and marks the rows and columns with one.  [overwrites row_kept,
    nonzero[thread]; changes column_kept[thread]]"""
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


def _outputs_first(layer: Layer, array: np.ndarray, groups: int) -> np.ndarray:
    """The weights with the outputs along the first axis, transposed where the layer stores them otherwise."""
    if layer.TYPE == "Deconvolution":
        ins, outs, *kernel = array.shape
        return array.reshape(groups, ins // groups, outs, -1).swapaxes(1, 2).reshape(groups * outs, -1, *kernel)
    return array.T if layer.param.inner_product_param.transpose else array


def _layout(param: Any, shape: Sequence[int], bottoms: Sequence[Blob]) -> tuple[int, int]:
    """Number of conv groups and columns per input channel of a weight blob."""
    if param.HasField("convolution_param"):
        return param.convolution_param.group, math.prod(shape[2:])
    if param.HasField("inner_product_param") and bottoms:
        bottom = bottoms[0]
        return 1, bottom.count_of(bottom.axis(param.inner_product_param.axis) + 1)
    return 1, 1


def _kept(flags: np.ndarray) -> NonZero:
    return NonZero(int(np.count_nonzero(flags)), flags.size)


def _listed_channels(channels: np.ndarray, columns: np.ndarray) -> NonZero:
    """Non-zero input channels of a convolution with listed columns.  channels: (groups, columns) channel of each column"""
    present = [np.unique(own).size for own in channels]
    left = [np.unique(own[there]).size for own, there in zip(channels, columns, strict=True)]
    return NonZero(sum(left), sum(present))
