"""The steps of a plan; a step runs one layer on its blobs.

The default step calls the layer's own code; ``FAST`` lists the layers for which there is a faster implementation with the
same values. A file contains the steps of one layer type, and the following layers that a step can include. Layers do not
know of steps. The class of each step has ``takes(layer)``: whether it can run this layer.
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
"""Layer class -> the faster step, which also serves classes derived from the layer class."""


def step_of(layer: Layer) -> type[Any]:
    """The class of the step that runs the layer: the fast one if there is one that can run it."""
    fast = next((step for cls, step in FAST.items() if isinstance(layer, cls)), None)
    return fast if fast is not None and fast.takes(layer) else Step
