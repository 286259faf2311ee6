"""Gates: the derivative of the loss with respect to a factor on each channel, image by image.

A gate of 1 stands behind the BatchNorm and Scale layers of each layer that makes the channel; its derivative is the sum over
positions of value times gradient. The gates of all makers of a coupled channel are one gate: their derivatives are added.

Ref: Theis, Korshunova, Tejani, Huszár 2018, "Faster gaze prediction with dense networks and Fisher pruning"; Molchanov,
Tyree, Karras, Aila, Kautz 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference"
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, final

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.compress.pruning.importance.base import Importance, Needs
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.bias import Bias
from sslnet.layers.scale import Scale
from sslnet.net.net import Net


class Gates(Importance):
    """Base of the criteria that see the derivatives of gates."""

    NEEDS: ClassVar[Needs] = Needs.GRADIENTS
    IN_LOSS: ClassVar[bool] = True

    def start(self, channels: CoupledChannels) -> None:
        super().start(channels)
        self.total = np.zeros(channels.count)
        self.images = 0
        self._behind = {i: channels.behind(i, (BatchNorm, Scale, Bias)) for i in channels.makers}

    def see(self, net: Net, images: int) -> None:
        gates = np.zeros((self.channels.count, images))
        for i, behind in self._behind.items():
            blob, units = net.tops[behind][0], self.channels.tops[i]
            if not blob.has_diff:
                continue
            size = len(blob.data)  # the loss is a mean over the batch: one image's gradient is that times the batch
            shape = (size, len(units), -1)
            products = np.einsum("ncp,ncp->cn", blob.data.reshape(shape), blob.diff.reshape(shape), dtype=np.float64)
            np.add.at(gates, units[units >= 0], size * products[units >= 0, :images])
        self.total += self.gather(gates).sum(axis=1)
        self.images += images

    @abstractmethod
    def gather(self, gates: np.ndarray) -> np.ndarray:
        """What the criterion adds up of each image's derivative.  gates: (units, images)"""

    def scores(self) -> np.ndarray:
        scores: np.ndarray = self.total / max(1, self.images)
        return scores


@final
class Fisher(Gates):
    """Half the mean square of the derivative: the loss by removing the channel, to second order, at a minimum."""

    NAME: ClassVar[str] = "fisher"

    def gather(self, gates: np.ndarray) -> np.ndarray:
        squares: np.ndarray = np.square(gates) / 2
        return squares


@final
class Taylor(Gates):
    """Mean absolute derivative: the loss by removing the channel, to first order."""

    NAME: ClassVar[str] = "taylor"

    def gather(self, gates: np.ndarray) -> np.ndarray:
        sizes: np.ndarray = np.abs(gates)
        return sizes
