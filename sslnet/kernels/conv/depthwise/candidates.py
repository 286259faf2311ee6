"""The depthwise loop nests: the geometries they suit, and their estimated cycles."""

from __future__ import annotations

from collections.abc import Iterator

from sslnet.kernels.conv.depthwise.layout import (
    MOST_PRODUCTS,
    DepthwiseLayout,
    forward_layout,
    input_grad_layout,
    weight_grad_layout,
)
from sslnet.kernels.conv.depthwise.loop import DepthwiseGradLoop, DepthwiseLoop
from sslnet.kernels.conv.geometry import ConvGeometry
from sslnet.kernels.conv.loop_nest import PackedLoop, WeightGradLoop
from sslnet.kernels.conv.problem import ConvProblem, Direction, LoopCandidate

MOST_FILTERS = 4
"""The most filters of a channel; with more, the general loop nests are faster because filters share loads."""


def _takes(problem: ConvProblem) -> bool:
    """Whether every channel has few filters of its own and all weights are used."""
    g = problem.geometry
    return problem.kept is None and g.groups == g.channels > 1 and g.group_filters <= MOST_FILTERS


def _takes_forward(g: ConvGeometry) -> bool:
    return g.stride_h <= 4 and g.stride_w <= 2 and g.columns <= MOST_PRODUCTS


def _takes_input_grad(g: ConvGeometry) -> bool:
    pads = ((g.pad_h, g.kernel_h, g.dilation_h), (g.pad_w, g.kernel_w, g.dilation_w))
    inside = all(pad <= (kernel - 1) * dilation for pad, kernel, dilation in pads)
    strides = g.stride_h <= 8 and g.stride_w in (1, 2, 4, 8)
    return inside and strides and g.group_filters * g.columns <= MOST_PRODUCTS


class StencilCandidate(LoopCandidate[DepthwiseLayout]):
    """The estimates that the depthwise loop nests share."""

    def _vectors(self, layout: DepthwiseLayout) -> tuple[int, int]:
        """The number of tiles of an output plane: (bands of rows, vectors along a band)."""
        n = layout.numbers
        folds = max(layout.reading.folds, 1)
        bands = -(-n["outputs_h"] // (layout.rows * folds))
        outputs_w = -(-n["out_w"] // layout.shape.steps[1])
        return bands, 1 if layout.reading.whole else -(-outputs_w // self.unit.lanes)

    def _filled(self, layout: DepthwiseLayout) -> float:
        """Cycles to copy a source plane into a window; none where it is read in place."""
        n, costs = layout.numbers, self.costs
        if layout.direct:
            return 0
        vector = costs.fill_pairs if layout.shape.split[1] > 1 else costs.fill_vector
        return float(n["height"] * (costs.fill_row + vector * -(-n["width"] // self.unit.lanes)))


class DepthwiseCandidate(StencilCandidate):
    """The depthwise loop nest of the forward pass and the gradient of the input."""

    DIRECTIONS = (Direction.FORWARD, Direction.INPUT_GRAD)

    def suits(self) -> bool:
        return _takes(self.problem) and (_takes_input_grad if self.problem.backward else _takes_forward)(self.geometry)

    def tiles(self) -> Iterator[DepthwiseLayout]:
        yield (input_grad_layout if self.problem.backward else forward_layout)(self.geometry, self.unit)

    def cycles(self, tile: DepthwiseLayout) -> float:
        g, shape, costs = self.geometry, tile.shape, self.costs
        bands, vectors = self._vectors(tile)
        plane = 0.0
        for phase in range(shape.steps[0]):
            met = shape.meetings(tile.rows, max(tile.reading.folds, 1), phase)
            products, loads = sum(map(len, met.values())), len(met) * costs.unaligned_load
            step = costs.step(shape.sources * products, shape.sources * loads)
            plane += bands * vectors * (step + costs.sum_stored * tile.rows * shape.steps[1])
        filters = 1 if self.problem.backward else g.group_filters
        return g.channels * (shape.sources * self._filled(tile) + filters * (costs.call / tile.planes + plane))

    def loop(self, tile: DepthwiseLayout) -> PackedLoop:
        g, p = self.geometry, self.problem
        filters = 1 if p.backward else g.group_filters
        flipped = p.backward and not tile.shape.adjoint
        return DepthwiseLoop(g, tile, p.unit, filters=filters, flipped=flipped, relu=p.relu)


class DepthwiseGradCandidate(StencilCandidate):
    """The depthwise loop nest of the gradient of the weights, whose sums must all fit into the registers."""

    DIRECTIONS = (Direction.WEIGHT_GRAD,)

    def suits(self) -> bool:
        return (
            _takes(self.problem) and _takes_forward(self.geometry) and self.geometry.columns + 3 <= self.unit.registers
        )

    def tiles(self) -> Iterator[DepthwiseLayout]:
        yield weight_grad_layout(self.geometry, self.unit)

    def cycles(self, tile: DepthwiseLayout) -> float:
        g, costs = self.geometry, self.costs
        bands, vectors = self._vectors(tile)
        met = tile.shape.meetings(tile.rows, max(tile.reading.folds, 1))
        products = sum(map(len, met.values())) + tile.rows
        step = costs.step(products, (len(met) + tile.rows) * costs.unaligned_load)
        sums = (costs.grad_sum + costs.lanes_sum / g.batch) * (g.columns + 1)
        enter = costs.call / tile.planes
        return g.channels * (self._filled(tile) + g.group_filters * (enter + bands * vectors * step + sums))

    def loop(self, tile: DepthwiseLayout) -> WeightGradLoop:
        return DepthwiseGradLoop(self.geometry, tile, self.unit)
