"""FPGM: the distance of a filter to the other filters of its layer; one near the geometric median can be replaced by others.

Ref: He, Liu, Wang, Hu, Yang 2019, "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration"
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.compress.pruning.importance.base import Importance
from sslnet.compress.pruning.linear_layer import LinearLayer, is_linear


@final
class Fpgm(Importance):
    """Mean Euclidean distance to the filters of the layer, summed over the layers that make the channel."""

    NAME: ClassVar[str] = "fpgm"

    def scores(self) -> np.ndarray:
        result = np.zeros(self.channels.count)
        for i in self.channels.makers:
            if not is_linear(self.channels.net, i):
                continue
            layer = LinearLayer(self.channels.net, i)
            filters = layer.matrix().transpose(0, 2, 1).reshape(layer.groups * layer.outputs, -1)
            units = self.channels.tops[i]
            np.add.at(result, units[units >= 0], _distances(filters)[units >= 0])
        return result


def _distances(filters: np.ndarray) -> np.ndarray:
    """Mean distance of each row to all rows: (rows)."""
    squares = np.square(filters).sum(axis=1)
    between = np.maximum(squares[:, None] + squares[None] - 2 * filters @ filters.T, 0)
    np.fill_diagonal(between, 0)
    distances: np.ndarray = np.sqrt(between).mean(axis=1)
    return distances
