"""Activation: the part of its positions at which a channel is active (above 0) behind its activation layer; 1 - APoZ.

Ref: Hu, Peng, Tai, Tang 2016, "Network Trimming: A Data-Driven Neuron Pruning Approach" (average percentage of zeros)
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.compress.pruning.importance.base import Importance, Needs
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.bias import Bias
from sslnet.layers.dropout import Dropout
from sslnet.layers.elementwise import Elementwise
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.pooling import Pooling
from sslnet.layers.prelu import PReLU
from sslnet.layers.relu import ReLU
from sslnet.layers.scale import Scale
from sslnet.net.net import Net

BETWEEN = (BatchNorm, Scale, Bias, Eltwise, Pooling, Dropout)
"""Layers that may lie between a layer with weights and its activation layer."""


@final
class Activation(Importance):
    """Share of images and positions with a value above 0; the mean over the layers that make the channel."""

    NAME: ClassVar[str] = "activation"
    NEEDS: ClassVar[Needs] = Needs.TOPS

    def start(self, channels: CoupledChannels) -> None:
        super().start(channels)
        self._active, self._places = np.zeros(channels.count), np.zeros(channels.count)
        self._behind = {i: self._activation(i) for i in channels.makers}

    def _activation(self, i: int) -> int:
        """Number of the activation layer behind layer i, or of the last layer of BatchNorm and Scale if there is none."""
        found = self.channels.behind(i, (ReLU, PReLU, Elementwise), BETWEEN, first=True)
        return found if found != i else self.channels.behind(i, (BatchNorm, Scale, Bias))

    def see(self, net: Net, images: int) -> None:
        for i, behind in self._behind.items():
            data, units = net.tops[behind][0].data[:images], self.channels.tops[i]
            there = units >= 0
            active = (data.reshape(len(data), len(units), -1) > 0).mean(axis=(0, 2))
            np.add.at(self._active, units[there], active[there] * images)
            np.add.at(self._places, units[there], images)

    def scores(self) -> np.ndarray:
        scores: np.ndarray = self._active / np.maximum(self._places, 1)
        return scores
