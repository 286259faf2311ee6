"""Deconvolution by the planned convolution kernels, together with a following ReLU.

It is a convolution from its top to its bottom, run backward, with the same weights: forward is the input gradient of that
convolution, the gradient of the bottom is its forward pass, and in the gradient of the weights x and dy are exchanged.
"""

from __future__ import annotations

from math import prod
from typing import Any

from sslnet.blob import Blob
from sslnet.kernels.conv.plan import ConvGeometry, plan_forward, plan_input_grad, plan_weight_grad
from sslnet.kernels.conv.taps import MOST_PASSES
from sslnet.layers.deconvolution import Deconvolution
from sslnet.net.steps.base import Step


class DeconvolutionStep(Step):
    """A 2-D deconvolution by the planned kernels."""

    layer: Deconvolution
    JOINS_RELU = True

    def __init__(self, layer: Deconvolution, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        super().__init__(layer, bottom, top, propagate_down)
        w = layer.window
        numbers = (*top[0].shape, layer.channels, *w.kernel, *w.stride, *w.pad, *w.dilation, layer.group, *w.pad_end)
        self.geometry = ConvGeometry(*numbers)
        self.relu = False
        self._forward: Any = None
        self._input_grad: Any = None
        self._weight_grad: Any = None

    @staticmethod
    def takes(layer: Deconvolution) -> bool:
        """Whether the layer has one batch axis and two spatial axes, and strides of a usual length."""
        return layer.num_spatial == 2 and layer.axis == 1 and prod(layer.window.stride) <= MOST_PASSES

    def join_relu(self) -> None:
        """Makes the step apply max(0, .) to its output in all following runs."""
        self.relu = True

    def forward(self) -> None:
        self.prepare()
        self.regions()

    def prepare(self) -> None:
        if self._forward is None:
            self._forward = plan_input_grad(self.geometry, relu=self.relu)
        blobs = self.layer.blobs
        self._forward.pack(blobs[0].data, blobs[1].data if len(blobs) > 1 else None)

    def regions(self) -> None:
        for source, target in zip(self.bottom, self.top):
            self._forward.run(source.data, target.data)

    def fits_tape(self) -> bool:
        return True

    def tape_state(self) -> object:
        return self._forward.loop, self._forward.loop.version

    def backward(self) -> None:
        blobs, wanted = self.layer.blobs, self.layer.param_propagate_down
        if wanted[0]:
            if self._weight_grad is None:
                self._weight_grad = plan_weight_grad(self.geometry)
            for source, target in zip(self.bottom, self.top):
                self._weight_grad.run(target.diff, source.data, blobs[0].diff)
        if len(blobs) > 1 and wanted[1]:
            for target in self.top:
                bias = blobs[1].diff
                bias += target.diff.sum(axis=(2, 3)).sum(axis=0)
        if any(self.propagate_down):
            if self._input_grad is None:
                self._input_grad = plan_forward(self.geometry)
            self._input_grad.pack(blobs[0].data, None)
            for source, target, down in zip(self.bottom, self.top, self.propagate_down):
                if down:
                    self._input_grad.run(target.diff, source.diff)

    def backward_reads(self) -> list[Blob]:
        return list(self.bottom) if self.layer.param_propagate_down[0] else []

    @property
    def kernel(self) -> str:
        name = self._forward.kernel if self._forward is not None else "conv"
        return f"{name}+relu" if self.relu else name
