"""InnerProduct by the planned products, together with a following ReLU."""

from __future__ import annotations

from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.matmul.fully_connected import plan_dot, plan_outer, plan_sum
from sslnet.kernels.matmul.structured import KeptProduct, keep_product
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.steps.base import Step


class InnerProductStep(Step):
    """A fully connected layer: two products and an outer product with the weights in place, without a copy.

    With ``transpose`` the weights are (inputs, outputs), and forward and input gradient exchange their roles. While weights
    are held, their all-zero rows and columns are skipped if that is worth a copy of the others.
    """

    layer: InnerProduct
    JOINS_RELU = True

    def __init__(self, layer: InnerProduct, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        super().__init__(layer, bottom, top, propagate_down)
        rows, columns = layer.blobs[0].shape
        self.inputs = rows if layer.transpose else columns
        self.sizes = bottom[0].count // self.inputs, rows, columns
        self.relu = False
        self.leaves_zeros = True
        """Whether all-zero rows and columns may be skipped."""
        self._forward: Any = None
        self._held = self._fresh = False
        self._kept: KeptProduct | None = None
        self._input_grad: Any = None
        self._weight_grad: Any = None

    @staticmethod
    def takes(layer: InnerProduct) -> bool:
        return True

    def join_relu(self) -> None:
        """Makes the step apply max(0, .) to its output in all following runs."""
        self.relu = True

    def hold_weights(self, held: bool) -> None:
        self._held, self._fresh, self._kept = held, False, None

    def forward(self) -> None:
        self.prepare()
        self.regions()

    def prepare(self) -> None:
        layer = self.layer
        if self._held and not self._fresh and self.leaves_zeros:
            bias = layer.blobs[1].data if len(layer.blobs) > 1 else None
            self._kept = keep_product(self.sizes[0], layer.blobs[0].data, bias, transpose=layer.transpose)
        self._fresh = True
        if self._kept is None and self._forward is None:
            # In phase TEST a tape may run the product; without one the same code runs, for the same bits.
            blas = layer.phase != pb.TEST
            self._forward = plan_sum(*self.sizes) if layer.transpose else plan_dot(*self.sizes, blas=blas)

    def regions(self) -> None:
        layer = self.layer
        x, y = self.bottom[0].data.reshape(-1, self.inputs), self.top[0].data.reshape(-1, layer.num_output)
        bias = layer.blobs[1].data if len(layer.blobs) > 1 else None
        if self._kept is not None:
            self._kept.run(x, y, relu=self.relu)
        else:
            self._forward.run(x, layer.blobs[0].data, y, bias, relu=self.relu)

    def fits_tape(self) -> bool:
        return self._kept is None and bool(self._forward.loop.TAPED)

    def tape_state(self) -> object:
        return self._kept, self._forward

    def backward(self) -> None:
        layer, wanted = self.layer, self.layer.param_propagate_down
        dy = self.top[0].diff.reshape(-1, layer.num_output)
        if wanted[0]:
            self._add_weight_grad(dy)
        if len(layer.blobs) > 1 and wanted[1]:
            bias = layer.blobs[1].diff
            bias += dy.sum(axis=0)
        if self.propagate_down[0]:
            if self._input_grad is None:
                self._input_grad = (plan_dot if layer.transpose else plan_sum)(*self.sizes)
            self._input_grad.run(dy, layer.blobs[0].data, self.bottom[0].diff.reshape(-1, self.inputs))

    def _add_weight_grad(self, dy: np.ndarray) -> None:
        if self._weight_grad is None:
            self._weight_grad = plan_outer(*self.sizes)
        x = self.bottom[0].data.reshape(-1, self.inputs)
        factors = (x, dy) if self.layer.transpose else (dy, x)
        self._weight_grad.run(*factors, self.layer.blobs[0].diff)

    def backward_reads(self) -> list[Blob]:
        return list(self.bottom) if self.layer.param_propagate_down[0] else []

    @property
    def kernel(self) -> str:
        run = self._kept or self._forward
        name = run.kernel if run is not None else "fc"
        return f"{name}+relu" if self.relu else name
