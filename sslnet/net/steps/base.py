"""Steps that run any layer: the layer's own code, or nothing at all."""

from __future__ import annotations

from typing import ClassVar

from sslnet.blob import Blob
from sslnet.layers.base import Layer


class Step:
    """Runs one layer on its blobs by the layer's own code.

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
        """While held, packed weights may be reused; the caller holds them again after a change. Does nothing by default."""

    def forward(self) -> None:
        self.layer.forward(self.bottom, self.top)

    def backward(self) -> None:
        self.layer.backward(self.top, self.propagate_down, self.bottom)

    def stand_alone(self) -> None:
        """Before layers run one by one: provides the arrays that the layer's own code would have saved. Does nothing by
        default."""

    def backward_reads(self) -> list[Blob]:
        """The blobs whose data ``backward`` reads, so that memory of other blobs can be reused before. By default all blobs
        of a step that does not run the layer's own code."""
        if type(self).backward is not Step.backward:
            return [*self.bottom, *self.top]
        in_place = bool(self.bottom and self.top) and self.top[0] is self.bottom[0]
        read = [blob for j, blob in enumerate(self.bottom) if self.layer.reads_bottom(j, in_place)]
        return [*read, *self.top] if self.layer.reads_top(in_place) else read

    @property
    def kernel(self) -> str:
        """Name of the method that the step uses, for reports."""
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
    """Step of a layer whose forward pass runs as part of the step before it."""

    IDLE = True

    def forward(self) -> None:
        pass

    @property
    def kernel(self) -> str:
        return "joined"
