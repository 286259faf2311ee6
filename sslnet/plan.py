"""The plan: the flat list of steps that a net runs, compiled from its graph.

``sslnet.steps`` has the steps; which of them run, and which are joined, is decided here, in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sslnet.layers.relu import ReLU
from sslnet.steps import FAST, ConvolutionStep, EmptyStep, JoinedStep, Step

if TYPE_CHECKING:
    from sslnet.net import Net


class Plan:
    """The steps of a net, one a layer, in order.

    fused   let a step take over what the next layer does (only when the whole net runs)

    Made for the shapes that the blobs have now; other shapes need another plan.
    """

    def __init__(self, net: Net, *, fused: bool) -> None:
        self.steps: list[Step] = []
        for i, layer in enumerate(net.layers):
            fast = None if net.plain else FAST.get(layer.TYPE)
            step: type[Any] = fast if fast is not None and fast.takes(layer) else Step
            if EmptyStep.takes(layer, net.bottoms[i], net.tops[i]):
                step = EmptyStep
            self.steps.append(step(layer, net.bottoms[i], net.tops[i], net.bottom_need_backward[i]))
        if fused:
            self._join_relu()

    def _join_relu(self) -> None:
        """A ReLU in place right behind a convolution runs as part of it."""
        for i, (step, after) in enumerate(zip(self.steps, self.steps[1:])):
            if (
                isinstance(step, ConvolutionStep)
                and isinstance(after.layer, ReLU)
                and len(step.top) == 1
                and after.bottom[0] is step.top[0]
                and after.top[0] is step.top[0]
                and after.layer.slope == 0
            ):
                step.join_relu()
                self.steps[i + 1] = JoinedStep(after.layer, after.bottom, after.top, after.propagate_down)
