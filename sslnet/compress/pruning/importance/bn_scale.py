"""BatchNorm scale: the absolute value of gamma, the factor that the Scale layer behind a BatchNorm learns.

Ref: Liu, Li, Shen, Huang, Yan, Zhang 2017, "Learning Efficient Convolutional Networks through Network Slimming"
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.compress.pruning.importance.base import Importance
from sslnet.errors import UsageError
from sslnet.layers.scale import Scale
from sslnet.sparsity.channel_parts import Role


@final
class BnScale(Importance):
    """Sum of the absolute factors of all Scale layers of the channel. Channels without a Scale layer count with the mean of
    the others."""

    NAME: ClassVar[str] = "bn_scale"

    def start(self, channels: CoupledChannels) -> None:
        super().start(channels)
        if not self._factors():
            raise UsageError(
                "the criterion bn_scale needs Scale layers with a factor for each channel, and the net has none",
                hint="use the criterion magnitude",
            )

    def _factors(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Absolute factors of each Scale layer, and their units."""
        return [
            (np.abs(part.part.param.blob.data.astype(np.float64)), part.units)
            for part in self.channels.of(Role.FOLLOWER)
            if isinstance(part.part.param.layer, Scale)
            and part.part.param.index == 0
            and len(part.units) == part.part.param.blob.count
        ]

    def scores(self) -> np.ndarray:
        result, found = np.zeros(self.channels.count), np.zeros(self.channels.count, np.bool_)
        for factors, units in self._factors():
            np.add.at(result, units[units >= 0], factors[units >= 0])
            found[units[units >= 0]] = True
        result[~found] = result[found].mean() if found.any() else 0.0
        return result
