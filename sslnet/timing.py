"""Layer-wise time: forward and backward of each layer, run after run, and two nets side by side.

Every layer that computes is timed by itself, in the order of the net, on one batch that the data layers fetch once (they
are listed, not timed). The whole net is timed besides, as it runs when nobody looks at single layers: steps that do the
work of several layers at once make it faster than the sum. Two nets take turns, A B B A, so that what the machine does
meanwhile falls on both alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.footprint import Memory
from sslnet.inputs import copy_sources, fill_inputs, source_shapes, with_inputs
from sslnet.kernels.threads import num_threads
from sslnet.net import Net
from sslnet.peak import peak_flops
from sslnet.sparsity import Kept, measure
from sslnet.steps import Step

WARM_UP = 3
"""Runs that do not count: the first compile, the next fill caches."""


@dataclass(frozen=True)
class Spread:
    """Seconds over the runs: the median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Spread:
        low, median, high = np.percentile(list(samples), (25, 50, 75))
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class LayerTime:
    """One layer. backward is None where nothing runs backward; filters and columns (not zero) where there are weights
    (fillers may make every weight of a net zero: that tells nothing, and they are None).

    flops       of one forward pass over the batch
    flops_left  those of its non-zero filters and columns
    kernel      the way the forward step runs
    source      brings data from outside: fetched once, not timed
    """

    name: str
    type: str
    forward: Spread | None
    backward: Spread | None
    flops: int
    flops_left: int
    kernel: str
    filters: Kept | None
    columns: Kept | None
    source: bool = False

    @property
    def seconds(self) -> float:
        """Forward and backward together."""
        return sum(spread.median for spread in (self.forward, self.backward) if spread is not None)

    @property
    def rate(self) -> float | None:
        """FLOP a second of the forward pass."""
        return self.flops / self.forward.median if self.forward and self.flops and self.forward.median else None


@dataclass(frozen=True)
class NetTime:
    """A net: its layers, and the whole of it run at once.

    batch   images in the first blob that its data layers make
    memory  what its blobs, parameters and layers take as it is run here
    """

    name: str
    model: str
    phase: str
    batch: int
    layers: list[LayerTime]
    forward: Spread
    backward: Spread | None
    memory: Memory

    @property
    def flops(self) -> int:
        return sum(layer.flops for layer in self.layers)

    @property
    def seconds(self) -> float:
        return self.forward.median + (self.backward.median if self.backward else 0.0)


@dataclass(frozen=True)
class Timing:
    """What was measured, and how: one net, or two in turns."""

    nets: list[NetTime]
    iterations: int
    threads: int
    peak: float
    """FLOP/s that the threads can do at most."""


def open_net(
    model: str | Path,
    weights: str | Path | None = None,
    *,
    phase: int = pb.TRAIN,
    batch: int | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
    lean: bool = False,
) -> Net:
    """A net ready to be timed: its data fetched once, or random numbers in its inputs; ``batch`` images of them when given.

    lean   as of ``Net``; in phase TEST it leaves no backward pass to be timed

    raises UsageError for a batch below 1
    """
    if batch is not None and batch < 1:
        raise UsageError(f"a batch has at least 1 image, not {batch}")
    definition = prototxt.read_net(os.fspath(model))
    net = Net(definition, weights, phase, level=level, stages=stages, seed=seed, lean=lean)
    fill_inputs(net, seed)
    for layer, bottom, top in zip(net.layers, net.bottoms, net.tops):
        if layer.IS_SOURCE:
            layer.forward(bottom, top)
    if batch is None:
        return net
    shapes = {name: (batch, *shape[1:]) for name, shape in source_shapes(net).items()}
    changed = Net(with_inputs(definition, shapes), weights, phase, level=level, stages=stages, seed=seed, lean=lean)
    copy_sources(net, changed)
    return changed


def time_nets(nets: Sequence[Net], iterations: int = 50, *, forward_only: bool = False) -> Timing:
    """Times one net, or several in turns, on the data that their inputs hold.

    iterations  runs of each layer, and of each net as a whole, that count
    """
    if iterations < 1:
        raise UsageError(f"iterations must be at least 1, not {iterations}")
    watches = [_Watch(net, forward_only) for net in nets]
    for watch in watches:
        for _ in range(WARM_UP):
            watch.run_layers()
            watch.run_whole()
        watch.forget()
    for run in range(iterations):
        for watch in watches if run % 2 == 0 else watches[::-1]:
            watch.run_layers()
    for run in range(iterations):
        for watch in watches if run % 2 == 0 else watches[::-1]:
            watch.run_whole()
    return Timing([watch.result() for watch in watches], iterations, num_threads(), peak_flops())


class _Watch:
    """The samples of one net: seconds of each layer that computes, by its index, and of the whole."""

    def __init__(self, net: Net, forward_only: bool) -> None:
        self.net = net
        self.single, self.fused = net.plan(fused=False), net.plan(fused=True)
        self.computing = [i for i, layer in enumerate(net.layers) if not layer.IS_SOURCE]
        backward = [] if forward_only else [i for i in self.computing if net.layer_need_backward[i]]
        self.reversed = backward[::-1]
        self.forget()

    def forget(self) -> None:
        self.forward: dict[int, list[float]] = {i: [] for i in self.computing}
        self.backward: dict[int, list[float]] = {i: [] for i in self.reversed}
        self.whole_forward: list[float] = []
        self.whole_backward: list[float] = []

    def run_layers(self) -> None:
        steps = self.single.steps
        with self.single.running(self._last):
            for i in self.computing:
                self.forward[i].append(_seconds(steps[i : i + 1]))
            self._set_loss_diffs()
            for i in self.reversed:
                self.backward[i].append(_seconds(steps[i : i + 1], backward=True))

    def run_whole(self) -> None:
        steps = self.fused.steps
        with self.fused.running(self._last):
            self.whole_forward.append(_seconds([steps[i] for i in self.computing]))
            if self.reversed:
                self._set_loss_diffs()
                self.whole_backward.append(_seconds([steps[i] for i in self.reversed], backward=True))

    @property
    def _last(self) -> int:
        """The number of the last step, as lifetimes count them."""
        return (2 if self.reversed else 1) * len(self.net.layers) - 1

    def _set_loss_diffs(self) -> None:
        for i in self.reversed:
            for top, weight in zip(self.net.tops[i], self.net.layer_loss_weights[i]):
                if weight:
                    top.diff[...] = weight

    def result(self) -> NetTime:
        net = self.net
        shapes = list(source_shapes(net).values())
        return NetTime(
            name=net.name,
            model=net.definition.path or "",
            phase=pb.Phase.Name(net.phase),
            batch=shapes[0][0] if shapes and shapes[0] else 1,
            layers=self._layers(),
            forward=Spread.of(self.whole_forward),
            backward=Spread.of(self.whole_backward) if self.whole_backward else None,
            memory=net.memory(),
        )

    def _layers(self) -> list[LayerTime]:
        measured = measure(self.net)
        trained = any(row.elements.kept for row in measured)
        sparsity = {row.layer: row for row in measured if row.blob == 0 and trained}
        rows = []
        for i, layer in enumerate(self.net.layers):
            kept = sparsity.get(layer.name)
            flops = layer.flops(self.net.bottoms[i], self.net.tops[i])
            rows.append(
                LayerTime(
                    name=layer.name,
                    type=layer.TYPE,
                    forward=Spread.of(self.forward[i]) if i in self.forward else None,
                    backward=Spread.of(self.backward[i]) if i in self.backward else None,
                    flops=flops,
                    flops_left=kept.flops.kept if kept is not None and kept.flops.total else flops,
                    kernel="" if layer.IS_SOURCE else self.single.steps[i].kernel,
                    filters=kept.filters if kept is not None else None,
                    columns=kept.columns if kept is not None else None,
                    source=layer.IS_SOURCE,
                )
            )
        return rows


def _seconds(steps: Sequence[Step], backward: bool = False) -> float:
    """How long the steps take, one after the other in the order given."""
    start = time.perf_counter()
    for step in steps:
        if backward:
            step.backward()
        else:
            step.forward()
    return time.perf_counter() - start
