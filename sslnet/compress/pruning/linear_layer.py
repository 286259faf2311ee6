"""LinearLayer: a layer with weights as a linear regression, from samples of what it reads to what it gives.

At one output position, the outputs of a group of a Convolution, Deconvolution or InnerProduct are a matrix times the
lowered values that the group reads there, plus the bias. Criteria and repairs work with such samples alone, whatever the
type of the layer.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from sslnet.kernels.conv.sampled_columns import sample_columns, tap_table
from sslnet.layers.base import Layer
from sslnet.layers.convolution import Convolution
from sslnet.layers.deconvolution import Deconvolution
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.net import Net

POSITIONS = 40
"""Largest number of output positions that are sampled of each image."""


class LinearLayer:
    """One layer with weights.

    number    of the layer in its net
    groups    number of matrices
    taps      number of weights between an input and an output channel
    columns   of each matrix, channel by channel: (channels of a group) * taps; fewer where the layer lists its columns
    outputs   of each group
    positions at which the layer has outputs in one image
    channel   (groups, columns) channel of the bottom, over all groups, that each column reads
    """

    def __init__(self, net: Net, number: int) -> None:
        self.number = number
        self.layer: Any = net.layers[number]
        self.name: str = net.layer_names[number]
        bottom, top = net.bottoms[number][0], net.tops[number][0]
        self.kept: np.ndarray | None = None
        if isinstance(self.layer, InnerProduct):
            self.groups, self.outputs = 1, self.layer.num_output
            self.taps = self.layer.channel_size
            channels = bottom.shape[1]
            self.table = np.arange(self.taps, dtype=np.int32)[None]
        else:
            layer: Any = self.layer
            w, transposed = layer.window, isinstance(layer, Deconvolution)
            self.groups, self.outputs = layer.group, layer.num_output // layer.group
            self.taps, channels = prod(w.kernel), layer.channels
            self.table = tap_table(
                bottom.shape[2:], top.shape[2:], w.kernel, w.stride, w.pad, w.dilation, transposed=transposed
            )
            self.kept = None if transposed else layer.kept
        self.positions = len(self.table)
        each = channels // self.groups
        self.channel = np.repeat(np.arange(channels).reshape(self.groups, each), self.taps, axis=1)
        if self.kept is not None:
            self.channel = np.take_along_axis(self.channel, self.kept, axis=1)
        self.columns = self.channel.shape[1]

    @property
    def has_bias(self) -> bool:
        return len(self.layer.blobs) > 1

    # -- samples -------------------------------------------------------------------------------------------------------

    def draw_places(self, images: int, random: np.random.Generator, most: int = POSITIONS) -> np.ndarray:
        """Output positions to sample, drawn anew for each image; all, if the layer has no more: (images, positions)."""
        if self.positions <= most:
            return np.tile(np.arange(self.positions, dtype=np.int32), (images, 1))
        return random.integers(self.positions, size=(images, most), dtype=np.int32)

    def inputs(self, data: np.ndarray, places: np.ndarray) -> np.ndarray:
        """What the layer reads at these places: (groups, images * positions, columns).  data: of its bottom"""
        rows = sample_columns(data, self.table, places, self.groups)
        if self.kept is None:
            return rows
        return np.take_along_axis(rows, self.kept[:, None, :], axis=2)

    def values(self, data: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Values at these places of a blob with the positions and channels of the top: (groups, images * positions,
        outputs)."""
        images, channels = data.shape[:2]
        flat = data.reshape(images, channels, -1)
        found = np.take_along_axis(flat, places[:, None, :], axis=2)
        return np.ascontiguousarray(found.reshape(images, self.groups, self.outputs, -1).transpose(1, 0, 3, 2)).reshape(
            self.groups, -1, self.outputs
        )

    # -- parameters ----------------------------------------------------------------------------------------------------

    def matrix(self) -> np.ndarray:
        """A copy of the weights: (groups, columns, outputs) float64."""
        weights = self.layer.blobs[0].data
        if isinstance(self.layer, Deconvolution):
            shape = (self.groups, -1, self.outputs, self.taps)
            weights = weights.reshape(shape).transpose(0, 1, 3, 2).reshape(self.groups, -1, self.outputs)
        elif isinstance(self.layer, InnerProduct) and self.layer.transpose:
            weights = weights[None]
        else:
            weights = weights.reshape(self.groups, self.outputs, -1).transpose(0, 2, 1)
        result: np.ndarray = weights.astype(np.float64)
        return result

    def put_matrix(self, matrix: np.ndarray) -> None:
        """Overwrites the weights.  matrix: (groups, columns, outputs)"""
        blob = self.layer.blobs[0]
        if isinstance(self.layer, Deconvolution):
            shape = (self.groups, -1, self.taps, self.outputs)
            blob.data[...] = matrix.reshape(shape).transpose(0, 1, 3, 2).reshape(blob.shape)
        elif isinstance(self.layer, InnerProduct) and self.layer.transpose:
            blob.data[...] = matrix[0]
        else:
            blob.data[...] = matrix.transpose(0, 2, 1).reshape(blob.shape)

    def bias(self) -> np.ndarray:
        """A copy of the bias, zeros without one: (groups, outputs) float64."""
        if not self.has_bias:
            return np.zeros((self.groups, self.outputs))
        bias: np.ndarray = self.layer.blobs[1].data.reshape(self.groups, self.outputs).astype(np.float64)
        return bias

    def put_bias(self, bias: np.ndarray) -> None:
        """Overwrites the bias, if the layer has one.  bias: (groups, outputs)"""
        if self.has_bias:
            self.layer.blobs[1].data[...] = bias.reshape(-1)


def is_linear(net: Net, i: int) -> bool:
    """Whether layer i can be seen as a ``LinearLayer``: its channels are along axis 1, and it has one bottom."""
    layer: Layer = net.layers[i]
    known = isinstance(layer, Convolution | Deconvolution | InnerProduct)
    return known and len(net.bottoms[i]) == 1 and getattr(layer, "axis", 0) == 1


def find_shared(net: Net) -> set[int]:
    """Numbers of the layers whose weights another layer uses, too."""
    users: dict[str, list[int]] = {}
    for i, layer in enumerate(net.layers):
        for spec in layer.param.param[: len(layer.blobs)]:
            if spec.name:
                users.setdefault(spec.name, []).append(i)
    return {i for layers in users.values() if len(layers) > 1 for i in layers}
