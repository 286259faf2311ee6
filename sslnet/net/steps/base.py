"""Steps that run any layer: the layer's own code, or nothing at all."""

from __future__ import annotations

from typing import ClassVar

from sslnet.blob import Blob
from sslnet.layers.base import Layer


class Step:
    """One layer's turn: the layer's own code on its blobs.

    Blobs may show other arrays in the next run: a step takes ``blob.data`` anew each time.
    """

    JOINS_RELU: ClassVar[bool] = False
    """Whether it can apply a ReLU behind it in place itself: it then has ``join_relu()``."""

    IDLE: ClassVar[bool] = False
    """Whether its forward pass never does anything."""

    def __init__(self, layer: Layer, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        self.layer = layer
        self.bottom = bottom
        self.top = top
        self.propagate_down = propagate_down

    def join_relu(self) -> None:
        """Applies max(0, .) to the output from now on."""
        raise NotImplementedError

    def hold_weights(self, held: bool) -> None:
        """While held, weights may be taken for what they are at the next run: whoever changes them says so by holding
        them again. Nothing to do where nothing is made of them."""

    def forward(self) -> None:
        self.layer.forward(self.bottom, self.top)

    def backward(self) -> None:
        self.layer.backward(self.top, self.propagate_down, self.bottom)

    def stand_alone(self) -> None:
        """Before the layers run one by one: leaves what their own code would have kept where it looks for it. Nothing to do
        where each step has run its own layer."""

    def backward_reads(self) -> list[Blob]:
        """The blobs whose data ``backward`` reads: memory of others may be used again before. A step that runs in another
        way than the layer reads all of its own, unless it says so itself."""
        if type(self).backward is not Step.backward:
            return [*self.bottom, *self.top]
        in_place = bool(self.bottom and self.top) and self.top[0] is self.bottom[0]
        read = [blob for j, blob in enumerate(self.bottom) if self.layer.reads_bottom(j, in_place)]
        return [*read, *self.top] if self.layer.reads_top(in_place) else read

    @property
    def kernel(self) -> str:
        """The way this step runs, for reports."""
        return "plain"


class EmptyStep(Step):
    """A layer whose blobs hold no value (a Filter let no image through): nothing to compute, and no gradient."""

    IDLE = True

    def forward(self) -> None:
        pass

    def backward(self) -> None:
        pass

    @staticmethod
    def takes(layer: Layer, bottom: list[Blob], top: list[Blob]) -> bool:
        return bool(bottom and top) and not (layer.DYNAMIC or any(blob.count for blob in (*bottom, *top)))


class JoinedStep(Step):
    """A layer whose forward pass the step before it has taken over."""

    IDLE = True

    def forward(self) -> None:
        pass

    @property
    def kernel(self) -> str:
        return "joined"
