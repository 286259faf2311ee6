"""Convolution by the planned kernels, together with a following affine map per channel and a following ReLU."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.kernels.conv.adaptive import AdaptivePlan
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.problem import ConvProblem, Direction
from sslnet.kernels.conv.taps import MOST_PASSES
from sslnet.kernels.runtime.change_detector import SameBits
from sslnet.layers.convolution import Convolution
from sslnet.net.steps.addresses import Addresses
from sslnet.net.steps.base import Step
from sslnet.net.steps.sparse_convolution import SparseWeightGrad, way_of, whole_weights


class ConvolutionStep(Step):
    """A convolution over one or two axes by the planned kernels; a following affine map of its channels and a following
    in-place ReLU can run with it.

    Weights are packed in every pass while they are trained. In phase TEST they are packed again only if their bits have
    changed, which a comparison detects for any kind of change; with ``hold_weights`` even the comparison is omitted.
    """

    layer: Convolution
    JOINS_RELU = True

    def __init__(self, layer: Convolution, bottom: list[Blob], top: list[Blob], propagate_down: list[bool]) -> None:
        super().__init__(layer, bottom, top, propagate_down)
        self.geometry = geometry_of(layer, bottom[0].shape)
        self.relu = False
        self.affine: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None
        self.way = way_of(layer)
        # engine: CAFFE requests plain sums of products
        self.winograd = layer.param.convolution_param.engine != pb.ConvolutionParameter.CAFFE
        self._forward: Any = None
        self._pairs: list[Addresses] = []
        self._input_grad: Any = None
        self._weight_grad: Any = None
        self._packed = SameBits()
        self._held = False
        self._fresh = False

    @staticmethod
    def takes(layer: Convolution) -> bool:
        """Whether the layer has one or two spatial axes, and strides of a usual length."""
        return layer.num_spatial in (1, 2) and prod(layer.window.stride) <= MOST_PASSES

    def join_relu(self) -> None:
        """Makes the step apply max(0, .) to its output in all following runs."""
        self.relu = True

    def join_affine(self, affine: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
        """Makes the step multiply every output channel by a factor and add a shift, (channels) each, in all following
        runs; both are requested in every pass."""
        self.affine = affine

    def hold_weights(self, held: bool) -> None:
        self._held, self._fresh = held, False

    def forward(self) -> None:
        self.prepare()
        self.regions()

    def prepare(self) -> None:
        g = self.geometry
        if self._forward is None:
            problem = ConvProblem(Direction.FORWARD, g, relu=self.relu, winograd=self.winograd)
            self._forward = AdaptivePlan(problem, self.way)
            self._pairs = [Addresses(*blobs) for blobs in zip(self.bottom, self.top)]
        self._pack()

    def regions(self) -> None:
        run_at = self._forward.run_at
        for pair in self._pairs:
            run_at(*pair.find())

    def fits_tape(self) -> bool:
        return True

    def tape_state(self) -> object:
        return self._forward.loop, self._forward.loop.version

    def _pack(self) -> None:
        """The packed weights for the forward pass; packs them if they have changed."""
        if self._held and self._fresh:
            return
        blobs = self.layer.blobs
        weights, bias = blobs[0].data, blobs[1].data if len(blobs) > 1 else None
        affine = self.affine() if self.affine is not None else ()
        arrays = (weights, *affine) if bias is None else (weights, bias, *affine)
        if self._held or self.layer.phase == pb.TRAIN or self._packed.changed(*arrays):
            if affine:
                factor, shift = affine
                weights = weights * factor.reshape(-1, *(1,) * (weights.ndim - 1))
                bias = shift if bias is None else bias * factor + shift
            self._forward.pack(whole_weights(self.layer, weights, self.geometry), bias)
        self._fresh = True

    def backward(self) -> None:
        g, blobs, wanted = self.geometry, self.layer.blobs, self.layer.param_propagate_down
        has_bias = len(blobs) > 1 and wanted[1]
        if has_bias and not wanted[0]:
            super().backward()
            return
        if wanted[0]:
            if self._weight_grad is None or not self._weight_grad.fits(self.layer):
                self._weight_grad = SparseWeightGrad(self.layer, g, winograd=self.winograd)
            dw, db = blobs[0].diff, blobs[1].diff if has_bias else None
            for source, target in zip(self.bottom, self.top):
                self._weight_grad.run(source.data.reshape(g.input_shape), target.diff.reshape(g.output_shape), dw, db)
        if any(self.propagate_down):
            if self._input_grad is None:
                # the weights are packed before each run
                problem = ConvProblem(Direction.INPUT_GRAD, g, winograd=self.winograd, lasting=False)
                self._input_grad = AdaptivePlan(problem, self.way)
            self._input_grad.pack(whole_weights(self.layer, blobs[0].data, g))
            for source, target, down in zip(self.bottom, self.top, self.propagate_down):
                if down:
                    self._input_grad.run(target.diff.reshape(g.output_shape), source.diff.reshape(g.input_shape))

    def backward_reads(self) -> list[Blob]:
        return list(self.bottom) if self.layer.param_propagate_down[0] else []

    @property
    def kernel(self) -> str:
        name = getattr(self._forward, "kernel", "conv") if self._forward is not None else "conv"
        name = f"{name}+norm" if self.affine is not None else name
        return f"{name}+relu" if self.relu else name


def geometry_of(layer: Convolution, shape: tuple[int, ...]) -> ConvGeometry:
    """The geometry of a convolution with a bottom of this shape; a single spatial axis counts as the columns of one
    row."""
    w, sizes = layer.window, shape[layer.axis + 1 :]
    height, width = (1, *sizes)[-2:]
    kernel, stride, pad, dilation, pad_end = (
        (first, *axes)[-2:] for first, axes in zip((1, 1, 0, 1, 0), w.axes, strict=True)
    )
    batch = prod(shape[: layer.axis])
    numbers = (*kernel, *stride, *pad, *dilation, layer.group, *pad_end)
    return ConvGeometry(batch, layer.channels, height, width, layer.num_output, *numbers)
