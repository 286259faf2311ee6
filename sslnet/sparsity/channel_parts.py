"""Channel parts: which slices of which parameters belong to each class of coupled channels.

This is the one account of what a channel consists of; the coupled penalties (``sslnet.solver.coupled_groups``) and pruning
(``sslnet.compress.pruning``) take the same parts from it. A part is one parameter, tiled so that each tile belongs to one
channel:

    MAKER     the weights and the bias by which a layer with weights produces the channel: a filter, a row, one bias
    FOLLOWER  the values that a layer behind it holds for the channel: Scale, Bias, BatchNorm (mean, variance), PReLU
    READER    the weights by which a later layer with weights reads the channel: the columns of its matrix

A depthwise convolution is a maker of its channels (its input and output channels are in one class), never a reader.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.bias import Bias
from sslnet.layers.convolution import Convolution
from sslnet.layers.prelu import PReLU
from sslnet.layers.scale import Scale
from sslnet.net.net import Net
from sslnet.net.parameters import Param
from sslnet.sparsity.channel_dependencies import ChannelClasses, find_channel_classes, mixes
from sslnet.sparsity.groups import ROWS, VALUES, Tile, as_tiles, matrix_shape, tiles_of

FOLLOWERS = (Scale, Bias, BatchNorm, PReLU)
"""Layers that hold values for each channel of their bottom and produce no new channels."""


class Role(enum.Enum):
    """The relation of a parameter to the channels that it has a part in."""

    MAKER = "maker"
    FOLLOWER = "follower"
    READER = "reader"


@dataclass(frozen=True, eq=False)
class ChannelPart:
    """The slices of one parameter that belong to channels.

    layer    number of the layer in the net
    height, width  rows and columns of a tile in the parameter's matrix, which has shape[0] rows
    classes  (tiles) class of coupled channels that each tile belongs to, as numbered by ``find_channel_classes``; tiles are counted
             along the rows of tiles
    listed   whether the layer lists its stored columns (``kept_column``), so that a channel has no fixed number of them
    """

    param: Param
    layer: int
    role: Role
    height: int
    width: int
    classes: np.ndarray
    listed: bool = False

    @property
    def tile(self) -> Tile:
        return self.height, self.width

    def tiles(self, array: np.ndarray | None = None) -> np.ndarray:
        """View of the parameter, or of an array of its shape, as (tiles down, height, tiles along, width)."""
        return as_tiles(self.param.blob.data if array is None else array, self.height, self.width)

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Sums an array of the parameter's shape over each tile: (tiles) float64."""
        summed: np.ndarray = np.einsum("ahbw->ab", self.tiles(values), dtype=np.float64).reshape(-1)
        return summed

    def clear(self, gone: np.ndarray) -> None:
        """Sets tiles of the parameter to zero.  gone: (tiles) bool  [overwrites the parameter]"""
        tiles = self.tiles()
        tiles[...] = np.where(gone.reshape(tiles.shape[0], 1, tiles.shape[2], 1), 0, tiles)


class ChannelParts:
    """The parts of all parameters of a net.

    ties     classes of the channels of all blobs
    parts    the parts, in the order of ``net.learnable``; makers and followers of a parameter before readers
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self.ties: ChannelClasses = find_channel_classes(net)
        places = {id(layer): i for i, layer in enumerate(net.layers)}
        self.parts = [part for param in net.learnable for part in self._of(param, places[id(param.layer)])]

    def of(self, role: Role) -> Iterator[ChannelPart]:
        """The parts in one role, in the order of ``net.learnable``."""
        return (part for part in self.parts if part.role is role)

    def makers(self, classes: Sequence[int] | np.ndarray) -> list[int]:
        """Numbers of the layers with weights that produce channels of these classes, in order."""
        makers = {i for i, layer in enumerate(self.net.layers) if layer.blobs and self._produces(i)}
        return sorted(i for i in makers if np.isin(self.ties.tops[i][0], classes).any())

    def _produces(self, i: int) -> bool:
        params = [param for param in self.net.learnable if param.layer is self.net.layers[i]]
        return any(_row_tile(param) is not None for param in params)

    def _of(self, param: Param, i: int) -> Iterator[ChannelPart]:
        layer, index = param.layer, param.index
        rows = _row_tile(param)
        if rows is not None:
            yield from self._tiled(param, i, Role.MAKER, rows, self.ties.tops[i][0])
        elif isinstance(layer, FOLLOWERS) and self._by_channel(param, i):
            yield from self._tiled(param, i, Role.FOLLOWER, (1, 1), self.ties.tops[i][0])
        if index or not mixes(layer) or not self.ties.bottoms[i]:
            return
        read = self.ties.bottoms[i][0]
        if isinstance(layer, Convolution) and layer.kept is not None:
            columns = read.reshape(layer.group, -1)
            kept = layer.kept // prod(layer.window.kernel)
            classes = np.take_along_axis(columns, kept, axis=1).reshape(-1)
            yield from self._tiled(param, i, Role.READER, tiles_of(param)["SHAPE"], classes, listed=True)
        elif "CHANNEL" in tiles_of(param):
            yield from self._tiled(param, i, Role.READER, tiles_of(param)["CHANNEL"], read)

    def _tiled(
        self, param: Param, i: int, role: Role, tile: Tile, classes: np.ndarray, *, listed: bool = False
    ) -> Iterator[ChannelPart]:
        """The part with these tiles; none if there is not one tile for each channel."""
        rows, columns = matrix_shape(param.blob.shape)
        if (rows // tile[0]) * (columns // tile[1]) == len(classes):
            yield ChannelPart(param, i, role, *tile, classes, listed)

    def _by_channel(self, param: Param, i: int) -> bool:
        """Whether the parameter holds one value for each channel."""
        layer = param.layer
        if isinstance(layer, Scale | Bias) and (len(self.net.bottoms[i]) > 1 or layer.axis != 1):
            return False
        return param.blob.shape == (len(self.ties.tops[i][0]),)


def _row_tile(param: Param) -> Tile | None:
    """The tile of one output channel in a parameter of a layer that produces channels; None for other layers."""
    tiles = tiles_of(param)
    if param.layer.TYPE in VALUES:
        return None
    return next((tiles[name] for name in ROWS if name in tiles), None)
