"""The plan: the flat list of steps that a net runs, compiled from its graph.

``sslnet.steps`` has the steps; which of them run, and which are joined, is decided here, in one place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sslnet.arena import Lease
from sslnet.blob import Blob
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.relu import ReLU
from sslnet.layers.scale import Scale
from sslnet.lifetimes import lifetimes
from sslnet.steps import FAST, EmptyStep, JoinedStep, Step, batch_norm

if TYPE_CHECKING:
    from sslnet.net import Net


class Plan:
    """The steps of a net, one a layer, in order.

    fused   let a step take over what the next layer does (only when the whole net runs)

    Made for the shapes that the blobs have now; other shapes need another plan.
    """

    def __init__(self, net: Net, *, fused: bool) -> None:
        self.fused = fused
        self.held = False
        self.steps: list[Step] = []
        for i, layer in enumerate(net.layers):
            fast = None if net.plain else FAST.get(layer.TYPE)
            step: type[Any] = fast if fast is not None and fast.takes(layer) else Step
            if EmptyStep.takes(layer, net.bottoms[i], net.tops[i]):
                step = EmptyStep
            self.steps.append(step(layer, net.bottoms[i], net.tops[i], net.bottom_need_backward[i]))
        if net.lean:
            self._share_normalized()
        if fused:
            if not net.plain:
                batch_norm.join(self.steps, net.layer_need_backward)
            self._join_relu()
        self.runs = [step.forward for step in self.steps if not step.IDLE]
        """What runs a forward pass, in order."""
        self.lease = Lease(net.arena, lifetimes(net, self.steps, net.kept)) if net.lean else None

    def hold_weights(self, held: bool) -> None:
        """Lets steps keep what they make of the weights, which stay what they are at the next run until this is called
        again: after every change, when they are held."""
        self.held = held
        for step in self.steps:
            step.hold_weights(held)

    @contextlib.contextmanager
    def running(self, last: int) -> Iterator[None]:
        """While its steps run: the blobs of a lean net have their memory, and what step ``last`` leaves to be read stays.

        last   the step that the run ends with, as ``sslnet.lifetimes`` counts them
        """
        if self.lease is None:
            yield
            return
        self.lease.take()
        try:
            yield
        finally:
            self.lease.give_back(last)

    @property
    def holds_memory(self) -> bool:
        """Whether the memory that its blobs share still has what it has written there."""
        return self.lease is None or self.lease.holds

    def exempt(self, blob: Blob, which: str) -> None:
        """Leaves the "data", or "diff", of a blob out of the memory that blobs share."""
        if self.lease is not None:
            self.lease.exempt(blob, which)

    def _share_normalized(self) -> None:
        """A Scale in place right behind a BatchNorm in place reads what that has kept, instead of keeping it as well.

        In a lean net alone: in any other, the user may run the Scale on other values.
        """
        for step, after in zip(self.steps, self.steps[1:]):
            norm, scale = step.layer, after.layer
            if isinstance(norm, BatchNorm) and isinstance(scale, Scale) and norm.context.backward:
                blob = step.top[0]
                if step.bottom[0] is blob and after.bottom[0] is blob and after.top[0] is blob:
                    scale.take_input(norm.normalized)

    def _join_relu(self) -> None:
        """A ReLU in place right behind a step that can apply it runs as part of that step."""
        for i, (step, after) in enumerate(zip(self.steps, self.steps[1:])):
            if (
                step.JOINS_RELU
                and isinstance(after.layer, ReLU)
                and len(step.top) == 1
                and after.bottom[0] is step.top[0]
                and after.top[0] is step.top[0]
                and after.layer.slope == 0
            ):
                step.join_relu()
                self.steps[i + 1] = JoinedStep(after.layer, after.bottom, after.top, after.propagate_down)
