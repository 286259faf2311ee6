"""PlanCache: keeps the plans of a net for the last few shapes of its blobs."""

from __future__ import annotations

from sslnet.blob import Blob
from sslnet.net.layer_graph import LayerGraph
from sslnet.net.memory_planner import Arena
from sslnet.net.plan import Plan

KEPT_PLANS = 4
"""Maximum number of plans: fused and not, for two shapes of the input, such as alternating batch sizes."""

Shapes = tuple[tuple[int, ...], ...]


class PlanCache:
    """Plans by the shapes that the blobs have, fused and not.

    plain   run only the layers' own code
    arena   the memory that blobs share, in a lean net
    """

    def __init__(self, graph: LayerGraph, *, plain: bool, arena: Arena | None) -> None:
        self.graph, self.plain, self.arena = graph, plain, arena
        self._kept: set[tuple[Blob, str]] = set()
        """(blob, "data" or "diff") that have memory of their own, in a lean net."""
        self.plans: dict[tuple[bool, Shapes], Plan] = {}
        """Plans by (fused, shapes), the one used last at the end."""
        self._current: dict[bool, Plan] = {}
        """Plans for the shapes that the blobs have now, by ``fused``."""
        self._shapes: Shapes = ()
        self._reshaped = Blob.reshaped

    def note_shapes(self) -> bool:
        """Notes the current shapes of the blobs for the next plan; returns whether they have changed."""
        before, self._shapes = self._shapes, self._all_shapes()
        self._reshaped = Blob.reshaped
        self._current.clear()
        return before != self._shapes

    def is_outdated(self) -> bool:
        """Whether a blob has been reshaped since ``note_shapes``."""
        if self._reshaped is not Blob.reshaped:
            if self.shapes_differ():
                return True
            self._reshaped = Blob.reshaped
        return False

    def shapes_differ(self) -> bool:
        """Whether a blob has another shape than at ``note_shapes``."""
        return self._shapes != self._all_shapes()

    def plan(self, fused: bool) -> Plan:
        """The plan for the noted shapes."""
        plan = self._current.get(fused)
        if plan is None:
            key = (fused, self._shapes)
            plan = self.plans[key] = self.plans.pop(key) if key in self.plans else self.new_plan(fused)
            if len(self.plans) > KEPT_PLANS:
                del self.plans[next(iter(self.plans))]
            self._current[fused] = plan
        return plan

    def new_plan(self, fused: bool) -> Plan:
        """Makes a separate plan for the current shapes of the blobs."""
        return Plan(self.graph, fused=fused, plain=self.plain, arena=self.arena, kept=self._kept)

    def keep(self, blob: Blob, which: str) -> None:
        """Gives the "data" or "diff" of a lean net's blob memory of its own from now on."""
        if self.arena is not None and (blob, which) not in self._kept:
            self._kept.add((blob, which))
            for plan in self.plans.values():
                plan.exempt(blob, which)
            blob.keep(which)

    def _all_shapes(self) -> Shapes:
        return tuple(blob.shape for blob in self.graph.versions)
