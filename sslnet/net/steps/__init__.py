"""What a plan is made of: a step runs one layer on its blobs.

The default step calls the layer's own, plain code; ``FAST`` names the layer types for which there is a faster way that
gives the same values. A file holds the steps of one layer type, with what they can take over from the layers behind them.
Layers know nothing of steps. Each step's class has ``takes(layer)``: whether it can run this layer.
"""

from __future__ import annotations

from typing import Any

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
]

FAST: dict[str, type[Any]] = {
    "Concat": ConcatStep,
    "Convolution": ConvolutionStep,
    "ConvolutionDepthwise": ConvolutionStep,
    "DepthwiseConvolution": ConvolutionStep,
    "Deconvolution": DeconvolutionStep,
    "Eltwise": EltwiseStep,
    "InnerProduct": InnerProductStep,
}
"""Layer type -> the faster step."""
