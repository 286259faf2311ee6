"""Selects how a convolution with zero weights runs: conv_mode, kept columns, frozen zeros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.kernels.conv.choose import choose
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.pattern import SparsityPattern, find_kept
from sslnet.kernels.conv.plan import WeightGradPlan
from sslnet.kernels.conv.problem import ConvProblem, Direction
from sslnet.kernels.runtime.memory import scratch
from sslnet.layers.convolution import Convolution
from sslnet.layers.kept_columns import expand_columns

CONV = pb.ConvolutionParameter

WAYS = {
    CONV.LOWERED_GEMM: "dense",
    CONV.LOWERED_CSRMM: "lowered",
    CONV.LOWERED_CCNMM: "kept",
    CONV.DIRECT_SCONV: "direct",
    CONV.DIRECT_DCONV: "dense",
    CONV.AUTO: "measure",
}
"""conv_mode -> the algorithm of ``kernels.conv.adaptive``."""
FEW = 0.4
"""Largest fraction of trained weights at which the gradient of these alone is compared with the gradient of all."""
FEW_IMAGES = 8
"""Number of images below which the gradient of the trained weights alone is always computed: the estimates are per
image, and do not include that the sums of all weights are cleared and added once."""


def way_of(layer: Convolution) -> str:
    """The plan that the layer's conv_mode requests; without conv_mode, dense or kept columns by estimate.

    Depthwise convolutions are dense then: to search for zeros in so many small groups takes longer than it saves.
    """
    param = layer.param.convolution_param
    if param.HasField("conv_mode"):
        return WAYS[param.conv_mode]
    return "dense" if layer.group == layer.channels > 1 else "estimate"


def whole_weights(layer: Convolution, weights: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """The weights of the layer's blob in the form that the kernels need: all columns."""
    if layer.kept is not None:
        weights = expand_columns(weights, layer.kept, layer.whole_shape)
    return weights.reshape(geometry.weight_shape)


class SparseWeightGrad:
    """Computes dw and db of a layer in the shapes of its blobs: of kept columns, or of the weights that are trained
    only."""

    def __init__(self, layer: Convolution, geometry: ConvGeometry, *, winograd: bool) -> None:
        g = self.geometry = geometry
        self.kept = layer.kept
        self.frozen = layer.frozen
        problems = [ConvProblem(Direction.WEIGHT_GRAD, g, winograd=winograd)]
        if self.kept is not None or self.frozen is not None:
            pattern = self._pattern(layer)
            if pattern.share <= FEW:
                dense = problems if g.batch >= FEW_IMAGES else []
                problems = [replace(problems[0], kept=pattern), *dense]
        self.plan = WeightGradPlan(g, choose(*problems).loop())

    def _pattern(self, layer: Convolution) -> SparsityPattern:
        """Rows and columns of the weight matrix with trained weights."""
        g = self.geometry
        trained = np.ones(layer.blobs[0].shape, np.float32) if self.frozen is None else self.frozen.astype(np.float32)
        return find_kept(whole_weights(layer, trained.reshape(layer.blobs[0].shape), g), g.groups)

    def fits(self, layer: Convolution) -> bool:
        """Whether this object still fits the layer's current weights."""
        return self.frozen is layer.frozen

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray | None) -> None:
        """Adds the gradients.  [accumulates into dw, of the blob's shape, and db]"""
        g = self.geometry
        if self.kept is None:
            self.plan.run(x, dy, dw.reshape(g.weight_shape), db)
            return
        whole = scratch("whole dw", int(np.prod(g.weight_shape))).reshape(g.weight_shape)
        whole[...] = 0
        self.plan.run(x, dy, whole, db)
        matrices = whole.reshape(g.groups, g.group_filters, g.columns)
        dw += np.take_along_axis(matrices, self.kept[:, None], axis=2).reshape(dw.shape)
