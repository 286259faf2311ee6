"""The plan: the flat list of steps that a net runs, compiled from its graph.

The steps are defined in ``sslnet.net.steps``; this module chooses and joins them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.layers.batch_norm import BatchNorm
from sslnet.layers.relu import ReLU
from sslnet.layers.scale import Scale
from sslnet.net.layer_graph import LayerGraph
from sslnet.net.liveness import lifetimes
from sslnet.net.memory_planner import Arena, Lease
from sslnet.net.steps import EmptyStep, JoinedStep, Step, batch_norm, step_of
from sslnet.net.steps.integer import integer_steps


class Plan:
    """The steps of a net, one a layer, in order.

    fused   let a step take over what the next layer does (only when the whole net runs)
    plain   only the layers' own code, none of the faster steps
    arena   the memory that blobs share, in a lean net;  kept: (blob, "data" or "diff") that have memory of their own

    A plan is valid for the shapes of the blobs at its creation; other shapes need another plan.
    """

    def __init__(
        self,
        graph: LayerGraph,
        *,
        fused: bool,
        plain: bool = False,
        arena: Arena | None = None,
        kept: Collection[tuple[Blob, str]] = (),
    ) -> None:
        self.fused = fused
        self.held = False
        self.taped: Any = None
        """The forward pass as tapes (``sslnet.net.taping``), if it has been recorded."""
        self.steps: list[Step] = []
        for i, layer in enumerate(graph.layers):
            step: type[Any] = Step if plain else step_of(layer)
            if EmptyStep.takes(layer, graph.bottoms[i], graph.tops[i]):
                step = EmptyStep
            self.steps.append(step(layer, graph.bottoms[i], graph.tops[i], graph.bottom_need_backward[i]))
        first = graph.layers[0] if graph.layers else None
        if first is not None and first.phase == pb.TEST and not plain:
            integer_steps(graph, self.steps, whole=fused)
        if arena is not None:
            self._share_normalized()
        if fused:
            if not plain:
                batch_norm.join(self.steps, graph.layer_need_backward)
            self._join_relu()
        self.lease = Lease(arena, lifetimes(graph, self.steps, kept)) if arena is not None else None

    def hold_weights(self, held: bool) -> None:
        """If held, lets steps reuse packed weights in the next runs; call it again after every change of the weights."""
        self.held = held
        if self.taped is not None:
            self.taped.prepare_again()
        for step in self.steps:
            step.hold_weights(held)

    @contextlib.contextmanager
    def running(self, last: int) -> Iterator[None]:
        """Context manager for a run: the blobs of a lean net use the arena; values live in step ``last`` remain readable.

        last   the step that the run ends with, as ``sslnet.net.liveness`` counts them
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
        """Whether the shared memory still holds the values that this plan has written."""
        return self.lease is None or self.lease.holds

    def exempt(self, blob: Blob, which: str) -> None:
        """Excludes the "data" or "diff" of a blob from the shared memory."""
        self.taped = None
        if self.lease is not None:
            self.lease.exempt(blob, which)

    def _share_normalized(self) -> None:
        """Makes an in-place Scale after an in-place BatchNorm read the array that the BatchNorm saved, not save a copy.

        Only for lean nets: in others, the user may run the Scale on other values.
        """
        for step, after in zip(self.steps, self.steps[1:]):
            norm, scale = step.layer, after.layer
            if isinstance(norm, BatchNorm) and isinstance(scale, Scale) and norm.context.backward:
                blob = step.top[0]
                if step.bottom[0] is blob and after.bottom[0] is blob and after.top[0] is blob:
                    scale.take_input(norm.normalized)

    def _join_relu(self) -> None:
        """Joins an in-place ReLU to the step before it, if that can apply it."""
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
