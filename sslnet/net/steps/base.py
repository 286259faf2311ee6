"""Steps that run any layer by its own code, and steps that run nothing."""

from __future__ import annotations

from typing import ClassVar

from sslnet.blob import Blob
from sslnet.layers.base import Layer
from sslnet.net.steps.taped import runs_only_regions


class Step:
    """Runs one layer on its blobs by the layer's own code.

    A blob may have another array in the next run, so a step reads ``blob.data`` in every run.
    """

    JOINS_RELU: ClassVar[bool] = False
    """Whether the step can apply a following in-place ReLU itself; it then has ``join_relu()``."""

    IDLE: ClassVar[bool] = False
    """Whether the forward pass of the step never does anything."""

    def __init__(self, layer: Layer, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        self.layer = layer
        self.bottom = bottom
        self.top = top
        self.propagate_down = propagate_down

    def join_relu(self) -> None:
        """Makes the step apply max(0, .) to its output in all following runs."""
        raise NotImplementedError

    def hold_weights(self, held: bool) -> None:
        """Allows the step to reuse packed weights while held; the caller must hold them again after a change. Does
        nothing by default."""

    def forward(self) -> None:
        self.layer.forward(self.bottom, self.top)

    def backward(self) -> None:
        self.layer.backward(self.top, self.propagate_down, self.bottom)

    # -- tapes: forward is prepare, then regions ---------------------------------------------------------------------

    def prepare(self) -> None:
        """What ``forward`` does in Python before its regions: packs weights, say. Does nothing by default."""

    def regions(self) -> None:
        """The rest of ``forward``: nothing but regions of compiled code, if ``fits_tape``."""
        self.forward()

    def fits_tape(self) -> bool:
        """Whether a tape can take ``regions``; asked after ``prepare``."""
        return runs_only_regions(self.layer, self.bottom, self.top)

    def tape_state(self) -> object:
        """What the regions depend on beside blobs: if ``prepare`` has changed it, a tape is no longer valid."""
        return None

    def stand_alone(self) -> None:
        """Provides the arrays that the layer's own code would have saved, before layers run one by one. Does nothing by
        default."""

    def backward_reads(self) -> list[Blob]:
        """The blobs whose data ``backward`` reads; memory of other blobs can be reused before. By default all blobs of
        a step that does not run the layer's own code."""
        if type(self).backward is not Step.backward:
            return [*self.bottom, *self.top]
        in_place = bool(self.bottom and self.top) and self.top[0] is self.bottom[0]
        read = [blob for j, blob in enumerate(self.bottom) if self.layer.reads_bottom(j, in_place)]
        return [*read, *self.top] if self.layer.reads_top(in_place) else read

    @property
    def kernel(self) -> str:
        """Name of the algorithm that the step uses, for reports."""
        return "plain"


class EmptyStep(Step):
    """Step of a layer whose blobs have no values (a Filter selected no image): nothing to compute, and no gradient."""

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
