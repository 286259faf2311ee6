"""Liveness analysis: the first and last step in which a blob's values are used; blobs with disjoint lifetimes share memory.

The steps of a plan are numbered 0 .. n - 1 in the forward pass, and n .. 2 n - 1 in the backward pass, the last step first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sslnet.blob import Blob
from sslnet.layers.concat import Concat
from sslnet.net.layer_graph import LayerGraph
from sslnet.net.steps import JoinedStep, Step


@dataclass
class LiveRange:
    """Lifetime of a blob's values, first written in step ``first`` and last read in step ``last``.

    which   "data" or "diff";  blob: the owner of the values, not a blob that shares them under another name
    offset  position in the arena in bytes; -1: not placed yet
    inside  the lifetime in whose memory these values are placed, at offset ``at`` in bytes (bottoms of a Concat in its top)

    The memory is reserved from step ``since`` to step ``until``: longer than the lifetime if others are placed inside.
    """

    blob: Blob
    which: str
    first: int
    last: int
    offset: int = -1
    inside: LiveRange | None = None
    at: int = 0

    def __post_init__(self) -> None:
        self.since, self.until = self.first, self.last

    @property
    def end(self) -> int:
        return self.offset + self.blob.nbytes

    def overlaps(self, other: LiveRange) -> bool:
        """Whether both need their memory in a common step."""
        return self.since <= other.until and other.since <= self.until

    def put_inside(self, other: LiveRange, at: int) -> None:
        """Places these values inside the other's memory, at offset ``at`` in bytes."""
        self.inside, self.at = other, at
        outer: LiveRange | None = other
        while outer is not None:
            outer.since, outer.until = min(outer.since, self.since), max(outer.until, self.until)
            outer = outer.inside


def lifetimes(graph: LayerGraph, steps: Sequence[Step], kept: Collection[tuple[Blob, str]]) -> list[LiveRange]:
    """The lifetimes of all values that may share memory. Excludes kept values, tops of source layers, outputs of the net,
    and diffs that are read without being written, which must remain zero.

    kept   (blob, "data" or "diff") that must remain readable

    In a net with layers whose shapes depend on the data (Filter, Python) nothing shares memory.
    """
    if any(layer.DYNAMIC for layer in graph.layers):
        return []
    watch = _TouchRecorder(graph, steps)
    for i in range(len(steps)):
        watch.forward(i)
    if graph.runs_backward:
        for i in reversed(range(len(steps))):
            if graph.layer_need_backward[i]:
                watch.backward(i)
    fixed = {(blob.owner(which), which) for blob, which in kept} | watch.unwritten
    for layer, tops in zip(graph.layers, graph.tops):
        if layer.IS_SOURCE:
            fixed |= {(top.owner(which), which) for top in tops for which in ("data", "diff")}
    for name in graph.outputs:
        fixed |= {(graph.blobs[name].owner(which), which) for which in ("data", "diff")}
    own = set(graph.versions)
    live_ranges = {
        (blob, which): LiveRange(blob, which, first, last)
        for (blob, which), (first, last) in watch.spans.items()
        if (blob, which) not in fixed and blob in own and blob.count
    }
    for i, layer in enumerate(graph.layers):
        if isinstance(layer, Concat) and layer.is_joint:
            _put_inside(graph.bottoms[i], graph.tops[i][0], live_ranges)
    return list(live_ranges.values())


def _put_inside(bottoms: Sequence[Blob], top: Blob, live_ranges: Mapping[tuple[Blob, str], LiveRange]) -> None:
    """Places the bottoms of a Concat one after the other inside its top, so that nothing has to be copied, where no other
    layer needs them; likewise their diffs."""
    data, diff = live_ranges.get((top, "data")), live_ranges.get((top, "diff"))
    at = 0
    for bottom in bottoms:
        part = live_ranges.get((bottom, "data"))
        if data is not None and part is not None and part.last == data.first:
            part.put_inside(data, at)
        part = live_ranges.get((bottom, "diff"))
        if diff is not None and part is not None and part.first == diff.last:
            part.put_inside(diff, at)
        at += bottom.nbytes


class _TouchRecorder:
    """Records the steps in which values are used. Joined steps count as one: values of one are live in all of them."""

    def __init__(self, graph: LayerGraph, steps: Sequence[Step]) -> None:
        self.graph = graph
        self.steps = steps
        self.spans: dict[tuple[Blob, str], tuple[int, int]] = {}
        self.unwritten: set[tuple[Blob, str]] = set()
        self._begin: list[int] = []
        for i, step in enumerate(steps):
            self._begin.append(self._begin[-1] if isinstance(step, JoinedStep) and i else i)
        self._end = [max(j for j, begin in enumerate(self._begin) if begin == own) for own in self._begin]

    def forward(self, i: int) -> None:
        for blob in (*self.graph.bottoms[i], *self.graph.tops[i]):
            self._touch(blob, "data", self._begin[i], self._end[i])

    def backward(self, i: int) -> None:
        last = 2 * len(self.steps) - 1
        times = last - self._end[i], last - self._begin[i]
        for blob in self.steps[i].backward_reads():
            self._touch(blob, "data", *times)
        for top, weight in zip(self.graph.tops[i], self.graph.layer_loss_weights[i]):
            key = (top.owner("diff"), "diff")
            if not weight and key not in self.spans:
                self.unwritten.add(key)
            self._touch(top, "diff", *times)
        for bottom, wanted in zip(self.graph.bottoms[i], self.graph.bottom_need_backward[i]):
            if wanted:
                self._touch(bottom, "diff", *times)

    def _touch(self, blob: Blob, which: str, first: int, last: int) -> None:
        key = (blob.owner(which), which)
        known = self.spans.get(key, (first, last))
        self.spans[key] = min(known[0], first), max(known[1], last)
