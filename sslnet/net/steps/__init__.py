"""The steps of a plan; a step runs one layer on its blobs.

The default step calls the layer's own, plain code; ``FAST`` names the layers for which there is a faster way that
gives the same values. A file holds the steps of one layer type, with what they can take over from the layers behind them.
Layers know nothing of steps. Each step's class has ``takes(layer)``: whether it can run this layer.
"""

from __future__ import annotations

from typing import Any

from sslnet.layers.base import Layer
from sslnet.layers.concat import Concat
from sslnet.layers.convolution import Convolution
from sslnet.layers.deconvolution import Deconvolution
from sslnet.layers.eltwise import Eltwise
from sslnet.layers.inner_product import InnerProduct
from sslnet.net.steps.base import EmptyStep, JoinedStep, Step
from sslnet.net.steps.concat import ConcatStep
from sslnet.net.steps.convolution import ConvolutionStep
from sslnet.net.steps.deconvolution import DeconvolutionStep
from sslnet.net.steps.eltwise import EltwiseStep
from sslnet.net.steps.inner_product import InnerProductStep

__all__ = [
    "FAST",
    "ConvolutionStep",
    "DeconvolutionStep",
    "EltwiseStep",
    "EmptyStep",
    "InnerProductStep",
    "JoinedStep",
    "Step",
    "step_of",
]

FAST: dict[type[Layer], type[Any]] = {
    Concat: ConcatStep,
    Convolution: ConvolutionStep,
    Deconvolution: DeconvolutionStep,
    Eltwise: EltwiseStep,
    InnerProduct: InnerProductStep,
}
"""Layer class -> the faster step, also for the classes that derive from it."""


def step_of(layer: Layer) -> type[Any]:
    """The class of the step that runs the layer: the fast one where there is one that takes it."""
    fast = next((step for cls, step in FAST.items() if isinstance(layer, cls)), None)
    return fast if fast is not None and fast.takes(layer) else Step
