"""Steps that run any layer: the layer's own code, or nothing at all."""

from __future__ import annotations

from sslnet.blob import Blob
from sslnet.layers.base import Layer


class Step:
    """One layer's turn: the layer's own code on its blobs."""

    def __init__(self, layer: Layer, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        self.layer = layer
        self.bottom = bottom
        self.top = top
        self.propagate_down = propagate_down

    def forward(self) -> None:
        self.layer.forward(self.bottom, self.top)

    def backward(self) -> None:
        self.layer.backward(self.top, self.propagate_down, self.bottom)

    @property
    def kernel(self) -> str:
        """The way this step runs, for reports."""
        return "plain"


class EmptyStep(Step):
    """A layer whose blobs hold no value (a Filter let no image through): nothing to compute, and no gradient."""

    def forward(self) -> None:
        pass

    def backward(self) -> None:
        pass

    @staticmethod
    def takes(layer: Layer, bottom: list[Blob], top: list[Blob]) -> bool:
        return bool(bottom and top) and not (layer.DYNAMIC or any(blob.count for blob in (*bottom, *top)))


class JoinedStep(Step):
    """A layer whose forward pass the step before it has taken over."""

    def forward(self) -> None:
        pass

    @property
    def kernel(self) -> str:
        return "joined"
