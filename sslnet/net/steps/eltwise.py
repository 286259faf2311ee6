"""Eltwise sums, together with a following ReLU in the same pass."""

from __future__ import annotations

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.pointwise.elementwise import weighted_sum
from sslnet.kernels.runtime.jit import spread
from sslnet.layers.eltwise import Eltwise
from sslnet.net.steps.base import Step


class EltwiseStep(Step):
    """A sum by the layer's own code; a following in-place ReLU can run with it."""

    layer: Eltwise
    JOINS_RELU = True

    def __init__(self, layer: Eltwise, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        super().__init__(layer, bottom, top, propagate_down)
        self.relu = False

    @staticmethod
    def takes(layer: Eltwise) -> bool:
        return bool(layer.operation == pb.EltwiseParameter.SUM)

    def join_relu(self) -> None:
        """Makes the step apply max(0, .) to its output in all following runs."""
        self.relu = True

    def forward(self) -> None:
        y = self.top[0].data.reshape(-1)
        xs = tuple([blob.data.reshape(-1) for blob in self.bottom])
        spread(weighted_sum, y.size, len(xs), xs, self.layer.coeffs, y, self.relu)

    def fits_tape(self) -> bool:
        return True

    @property
    def kernel(self) -> str:
        return "sum+relu" if self.relu else "plain"
