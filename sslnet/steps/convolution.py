"""Convolution through the planned kernels, a ReLU behind it included."""

from __future__ import annotations

from typing import Any

from sslnet.blob import Blob
from sslnet.kernels.conv import ConvGeometry, plan_forward, plan_input_grad, plan_weight_grad
from sslnet.layers.convolution import Convolution
from sslnet.steps.base import Step


class ConvolutionStep(Step):
    """A 2-D convolution through the planned kernels; a ReLU behind it, in place, may run with it."""

    layer: Convolution
    JOINS_RELU = True

    def __init__(self, layer: Convolution, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        super().__init__(layer, bottom, top, propagate_down)
        w = layer.window
        numbers = (*bottom[0].shape, layer.num_output, *w.kernel, *w.stride, *w.pad, *w.dilation, layer.group)
        self.geometry = ConvGeometry(*numbers)
        self.relu = False
        self._forward: Any = None
        self._input_grad: Any = None
        self._weight_grad: Any = None

    @staticmethod
    def takes(layer: Convolution) -> bool:
        """Two spatial axes behind one batch axis."""
        return layer.num_spatial == 2 and layer.axis == 1

    def join_relu(self) -> None:
        """Applies max(0, .) to the output from now on."""
        self.relu = True

    def forward(self) -> None:
        if self._forward is None:
            self._forward = plan_forward(self.geometry, relu=self.relu)
        blobs = self.layer.blobs
        self._forward.pack(blobs[0].data, blobs[1].data if len(blobs) > 1 else None)
        for source, target in zip(self.bottom, self.top):
            self._forward.run(source.data, target.data)

    def backward(self) -> None:
        blobs, wanted = self.layer.blobs, self.layer.param_propagate_down
        has_bias = len(blobs) > 1 and wanted[1]
        if has_bias and not wanted[0]:
            super().backward()
            return
        if wanted[0]:
            if self._weight_grad is None:
                self._weight_grad = plan_weight_grad(self.geometry)
            for source, target in zip(self.bottom, self.top):
                self._weight_grad.run(source.data, target.diff, blobs[0].diff, blobs[1].diff if has_bias else None)
        if any(self.propagate_down):
            if self._input_grad is None:
                self._input_grad = plan_input_grad(self.geometry)
            self._input_grad.pack(blobs[0].data)
            for source, target, down in zip(self.bottom, self.top, self.propagate_down):
                if down:
                    self._input_grad.run(target.diff, source.diff)

    def backward_reads(self) -> list[Blob]:
        return list(self.bottom) if self.layer.param_propagate_down[0] else []

    @property
    def kernel(self) -> str:
        name = getattr(self._forward, "kernel", "conv") if self._forward is not None else "conv"
        return f"{name}+relu" if self.relu else name
