"""Fluctuation: the variance of what a channel carries times the size of the weights that read it.

What does not vary can be replaced by its mean, in the bias of the readers.

Ref: An, Zhao, Yu, Tang, Wang 2024, "Fluctuation-based Adaptive Structured Pruning for Large Language Models" (FLAP)
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.compress.pruning.importance.base import Importance, Needs
from sslnet.compress.pruning.linear_layer import LinearLayer, is_linear
from sslnet.net.net import Net


@final
class Fluctuation(Importance):
    """Variance over images and positions, times the sum of squares of the weights that read the channel, over all readers."""

    NAME: ClassVar[str] = "fluctuation"
    NEEDS: ClassVar[Needs] = Needs.INPUTS

    def start(self, channels: CoupledChannels) -> None:
        super().start(channels)
        self._sums: dict[int, np.ndarray] = {}
        self._values: dict[int, int] = {}

    def see(self, net: Net, images: int) -> None:
        for i in self.channels.readers:
            data = net.bottoms[i][0].data[:images].astype(np.float64)
            data = data.reshape(len(data), data.shape[1], -1)
            sums = np.stack([data.sum(axis=(0, 2)), np.square(data).sum(axis=(0, 2))])
            self._sums[i] = self._sums.get(i, 0) + sums
            self._values[i] = self._values.get(i, 0) + data.shape[0] * data.shape[2]

    def scores(self) -> np.ndarray:
        result = np.zeros(self.channels.count)
        for i, (sums, squares) in self._sums.items():
            if not is_linear(self.channels.net, i):
                continue
            layer, units = LinearLayer(self.channels.net, i), self.channels.bottoms[i]
            mean = sums / self._values[i]
            variance = np.maximum(squares / self._values[i] - np.square(mean), 0)
            weights = np.square(layer.matrix()).sum(axis=2)
            size = np.bincount(layer.channel.reshape(-1), weights.reshape(-1), minlength=len(units))
            np.add.at(result, units[units >= 0], (variance * size)[units >= 0])
        return result
