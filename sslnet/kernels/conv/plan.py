"""2-D convolution, planned once per geometry and run many times.

    forward = plan_forward(geometry, relu=True)
    forward.pack(weights, bias)          # after every change of the weights
    forward.run(x, y)                    # overwrites y

    plan_input_grad(geometry)            # pack(weights), run(dy, dx): overwrites dx; a deconvolution too
    plan_weight_grad(geometry)           # run(x, dy, dw, db): accumulates into dw and db

Arrays are C-contiguous float32, NCHW; 64-byte alignment (memory.aligned_empty) helps, nothing depends on it, and nothing
outside an array is read or written. Plans thread over the batch through threads.parallel; for a given number of threads
the same input gives the same bits. One plan is not to be run by two threads at once.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from sslnet.kernels.conv.choose import choose_forward, choose_input_grad, choose_weight_grad
from sslnet.kernels.conv.depthwise import loop as depthwise
from sslnet.kernels.conv.geometry import ConvGeometry, check_array
from sslnet.kernels.conv.packing import address
from sslnet.kernels.conv.reference import ReferenceWeightGrad
from sslnet.kernels.simd.vector import VectorUnit, vector_unit

__all__ = [
    "ConvGeometry",
    "ForwardPlan",
    "InputGradPlan",
    "WeightGradPlan",
    "plan_forward",
    "plan_input_grad",
    "plan_weight_grad",
]


class Engine(Protocol):
    """Runs one pass; pack first."""

    tile: Any

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None: ...

    def run_at(self, source: int, target: int) -> None: ...


class WeightGradPlan(Protocol):
    """dw and db from x and dy."""

    geometry: ConvGeometry

    def run(
        self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None = None, *, accumulate: bool = True
    ) -> None:
        """Gradients of weights and bias.  [accumulates into dw and db; overwrites them if not accumulate]"""


class ForwardPlan:
    """y = x * w + b, then ReLU if planned with it."""

    def __init__(self, geometry: ConvGeometry, engine: Engine) -> None:
        self.geometry = geometry
        self.engine = engine

    @property
    def kernel(self) -> str:
        """Engine and tile, for reports."""
        return self.engine.tile.name

    def pack(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        """Copies weights (filters, channels / groups, kernel_h, kernel_w) and bias (filters,) into the order the kernel reads."""
        check_array("weights", weights, self.geometry.weight_shape)
        if bias is not None:
            check_array("bias", bias, (self.geometry.filters,))
        self.engine.pack(weights, bias)

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        """The convolution with the weights last packed.  [overwrites y]"""
        check_array("x", x, self.geometry.input_shape)
        check_array("y", y, self.geometry.output_shape)
        self.run_at(address(x), address(y))

    def run_at(self, x: int, y: int) -> None:
        """``run`` of arrays that begin at these addresses, not checked again."""
        self.engine.run_at(x, y)


class InputGradPlan:
    """dx from dy and the weights. With a bias, and ReLU if planned with it, it is the forward pass of a deconvolution."""

    def __init__(self, geometry: ConvGeometry, engine: Engine) -> None:
        self.geometry = geometry
        self.engine = engine

    @property
    def kernel(self) -> str:
        """Engine and tile, for reports."""
        return self.engine.tile.name

    def pack(self, weights: np.ndarray, bias: np.ndarray | None = None) -> None:
        """Copies the weights of the forward pass, and a bias (channels,) of dx, into the order the kernel reads."""
        check_array("weights", weights, self.geometry.weight_shape)
        if bias is not None:
            check_array("bias", bias, (self.geometry.channels,))
        self.engine.pack(weights, bias)

    def run(self, dy: np.ndarray, dx: np.ndarray) -> None:
        """The adjoint of the convolution with the weights last packed, plus the bias.  [overwrites dx]"""
        check_array("dy", dy, self.geometry.output_shape)
        check_array("dx", dx, self.geometry.input_shape)
        self.engine.run_at(address(dy), address(dx))


def plan_forward(
    geometry: ConvGeometry,
    *,
    relu: bool = False,
    kept: np.ndarray | None = None,
    unit: VectorUnit | None = None,
    winograd: bool = True,
) -> ForwardPlan:
    """The forward pass of a convolution.

    relu       fused: negative outputs become 0
    kept       (groups, kept columns) int: the columns of the weight matrix that are used, the others count as zero
    unit       the vector unit to use when it is not to be the machine's best
    winograd   False: sums of products as they stand, whose rounding errors are some ten times smaller
    """
    unit = unit or vector_unit()
    if kept is None and depthwise.takes_forward(geometry):
        return ForwardPlan(geometry, depthwise.forward_engine(geometry, unit, relu=relu))
    return ForwardPlan(geometry, choose_forward(geometry, unit, relu, kept, winograd))


def plan_input_grad(
    geometry: ConvGeometry,
    *,
    relu: bool = False,
    unit: VectorUnit | None = None,
    winograd: bool = True,
    lasting: bool = True,
) -> InputGradPlan:
    """The gradient of a convolution with respect to its input; relu, unit, winograd as in plan_forward.

    lasting   False: what is packed is good only until another plan packs; many weights then take their memory once
    """
    unit = unit or vector_unit()
    if depthwise.takes_input_grad(geometry):
        return InputGradPlan(geometry, depthwise.input_grad_engine(geometry, unit, relu=relu))
    return InputGradPlan(geometry, choose_input_grad(geometry, unit, winograd, relu=relu, lasting=lasting))


def plan_weight_grad(
    geometry: ConvGeometry, *, unit: VectorUnit | None = None, winograd: bool = True
) -> WeightGradPlan:
    """The gradient of a convolution with respect to its weights and bias."""
    unit = unit or vector_unit()
    if depthwise.takes_weight_grad(geometry, unit):
        return depthwise.DepthwiseWeightGrad(geometry, unit)
    return choose_weight_grad(geometry, unit, winograd) or ReferenceWeightGrad(geometry)
