"""Concat without copies if its bottoms are stored inside its top: in lean nets, with one image per batch."""

from __future__ import annotations

import numpy as np

from sslnet.blob import Blob
from sslnet.kernels.conv.packing import address
from sslnet.layers.concat import Concat
from sslnet.net.steps.base import Step


class ConcatStep(Step):
    """A Concat step that copies only bottoms stored outside the top; ``sslnet.net.liveness`` places bottoms inside it
    if possible."""

    layer: Concat

    def __init__(self, layer: Concat, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        super().__init__(layer, bottom, top, propagate_down)
        ends = np.cumsum([blob.nbytes for blob in bottom]).tolist()
        self.places = [end - blob.nbytes for blob, end in zip(bottom, ends)]

    @staticmethod
    def takes(layer: Concat) -> bool:
        return layer.is_joint

    def forward(self) -> None:
        first = address(self.top[0].data)
        if any(address(blob.data) != first + place for blob, place in zip(self.bottom, self.places)):
            super().forward()

    def backward(self) -> None:
        first = address(self.top[0].diff)
        wanted = [(blob, place) for blob, place, down in zip(self.bottom, self.places, self.propagate_down) if down]
        if any(address(blob.diff) != first + place for blob, place in wanted):
            super().backward()

    def fits_tape(self) -> bool:
        return True

    def backward_reads(self) -> list[Blob]:
        return []

    @property
    def kernel(self) -> str:
        return "in place if lean"
