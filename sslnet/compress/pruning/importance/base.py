"""Importance: the interface of a criterion that says what each prunable channel is worth."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from sslnet.compress.pruning.channels import CoupledChannels
from sslnet.net.net import Net


class Needs(enum.IntEnum):
    """What a criterion reads, from the least to the most: weights; what layers with weights read; every top, each in a blob
    of its own; the gradients of the loss with respect to these."""

    WEIGHTS = 0
    INPUTS = 1
    TOPS = 2
    GRADIENTS = 3


class Importance(ABC):
    """Base of the criteria. Use: ``start`` once, ``see`` for each batch of calibration images, then ``scores``.

    seed  of random draws, in criteria that have any
    """

    NAME: ClassVar[str]
    """The name in ``--by NAME``."""
    NEEDS: ClassVar[Needs] = Needs.WEIGHTS
    IN_LOSS: ClassVar[bool] = False
    """Whether scores are in units of the loss, so that those of different families compare as they are."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def start(self, channels: CoupledChannels) -> None:
        """Prepares for the channels of a net, whose weights are those before pruning."""
        self.channels = channels

    def see(self, net: Net, images: int) -> None:  # noqa: B027 - criteria of weights alone see no images
        """Takes in one batch of calibration images, which ``net`` has just run.

        net     the net of ``channels`` with inputs for the images: the numbers of its layers are the same; with separate tops
                for TOPS, after a backward pass for GRADIENTS
        images  number of images of the batch that count, from the first on
        """

    @abstractmethod
    def scores(self) -> np.ndarray:
        """(units) float64: the larger, the rather kept; at least 0."""
