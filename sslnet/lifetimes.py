"""Lifetimes: from which step to which the values of a blob matter, so that blobs whose lives do not overlap share memory.

The steps of a plan are numbered 0 .. n - 1 as they run forward and n .. 2 n - 1 as they run backward, the last first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sslnet.blob import Blob
from sslnet.steps import JoinedStep, Step

if TYPE_CHECKING:
    from sslnet.net import Net


@dataclass
class Life:
    """Values that are first written in step ``first`` and read for the last time in step ``last``.

    which   "data" or "diff";  blob: the one that they belong to, not one that shows them under another name
    offset  where in the arena they lie, in bytes; -1: nowhere yet
    """

    blob: Blob
    which: str
    first: int
    last: int
    offset: int = -1

    @property
    def end(self) -> int:
        return self.offset + self.blob.nbytes

    def overlaps(self, other: Life) -> bool:
        """Whether there is a step in which both matter."""
        return self.first <= other.last and other.first <= self.last


def lifetimes(net: Net, steps: Sequence[Step], kept: Collection[tuple[Blob, str]]) -> list[Life]:
    """The lives of all values that may share memory: none for what is kept, for what sources bring and outputs hold, and
    for diffs that are read where nobody has written them (they are zero, and stay it).

    kept   (blob, "data" or "diff") that stay readable

    A net with layers whose shapes depend on the data (Filter, Python) keeps everything.
    """
    if any(layer.DYNAMIC for layer in net.layers):
        return []
    watch = _Watch(net, steps)
    for i in range(len(steps)):
        watch.forward(i)
    if net.runs_backward:
        for i in reversed(range(len(steps))):
            if net.layer_need_backward[i]:
                watch.backward(i)
    fixed = {(blob.owner(which), which) for blob, which in kept} | watch.unwritten
    for layer, tops in zip(net.layers, net.tops):
        if layer.IS_SOURCE:
            fixed |= {(top.owner(which), which) for top in tops for which in ("data", "diff")}
    for name in net.outputs:
        fixed |= {(net.blobs[name].owner(which), which) for which in ("data", "diff")}
    own = set(net.versions)
    return [
        Life(blob, which, first, last)
        for (blob, which), (first, last) in watch.spans.items()
        if (blob, which) not in fixed and blob in own and blob.count
    ]


class _Watch:
    """Notes who touches what when. Steps that are joined count as one: what one of them touches lives through all."""

    def __init__(self, net: Net, steps: Sequence[Step]) -> None:
        self.net = net
        self.steps = steps
        self.spans: dict[tuple[Blob, str], tuple[int, int]] = {}
        self.unwritten: set[tuple[Blob, str]] = set()
        self._begin: list[int] = []
        for i, step in enumerate(steps):
            self._begin.append(self._begin[-1] if isinstance(step, JoinedStep) and i else i)
        self._end = [max(j for j, begin in enumerate(self._begin) if begin == own) for own in self._begin]

    def forward(self, i: int) -> None:
        for blob in (*self.net.bottoms[i], *self.net.tops[i]):
            self._touch(blob, "data", self._begin[i], self._end[i])

    def backward(self, i: int) -> None:
        last = 2 * len(self.steps) - 1
        times = last - self._end[i], last - self._begin[i]
        for blob in self.steps[i].backward_reads():
            self._touch(blob, "data", *times)
        for top, weight in zip(self.net.tops[i], self.net.layer_loss_weights[i]):
            key = (top.owner("diff"), "diff")
            if not weight and key not in self.spans:
                self.unwritten.add(key)
            self._touch(top, "diff", *times)
        for bottom, wanted in zip(self.net.bottoms[i], self.net.bottom_need_backward[i]):
            if wanted:
                self._touch(bottom, "diff", *times)

    def _touch(self, blob: Blob, which: str, first: int, last: int) -> None:
        key = (blob.owner(which), which)
        known = self.spans.get(key, (first, last))
        self.spans[key] = min(known[0], first), max(known[1], last)
