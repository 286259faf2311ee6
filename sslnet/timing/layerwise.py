"""Layer-wise time: forward and backward of each layer, run after run, and two nets side by side.

Every layer that computes is timed separately, in the order of the net, on one batch that the data layers fetch once (they
are listed, not timed). The whole net is also timed as it normally runs, with joined steps, which is faster than the sum of
its layers. Two nets run alternately, A B B A, so that other load on the machine affects both equally.
``sslnet.timing.sparse_forms`` compares the methods to run a layer with zero weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.kernels.runtime.threads import num_threads
from sslnet.layers.input import Input
from sslnet.net.input_layers import copy_sources, fetch, fill_inputs, source_shapes, with_inputs
from sslnet.net.memory_estimate import Memory
from sslnet.net.net import Net
from sslnet.net.steps import Step
from sslnet.net.steps.integer import IntegerStep
from sslnet.net.weights import WeightSource
from sslnet.prototxt import Definition
from sslnet.sparsity.measure import NonZero, measure
from sslnet.timing.roofline import peak_flops

WARM_UP = 3
"""Number of initial runs that do not count: they compile kernels and fill caches."""


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
    filters: NonZero | None
    columns: NonZero | None
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
    """The result of a timing of one net, or of two in turns.

    iterations  runs that count: fewer than asked for when they were interrupted
    peak        FLOP/s that the threads can do at most; None when it was not asked for
    """

    nets: list[NetTime]
    iterations: int
    threads: int
    peak: float | None


def open_net(
    model: str | Path | Definition,
    weights: WeightSource | None = None,
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
    definition = model if isinstance(model, Definition) else prototxt.read_net(os.fspath(model))
    net = Net(definition, weights, phase, level=level, stages=stages, seed=seed, lean=lean)
    fill_inputs(net, seed)
    fetch(net)
    if batch is None:
        return net
    shapes = {name: (batch, *shape[1:]) for name, shape in source_shapes(net).items()}
    changed = Net(with_inputs(definition, shapes), weights, phase, level=level, stages=stages, seed=seed, lean=lean)
    copy_sources(net, changed)
    return changed


def time_nets(
    nets: Sequence[Net],
    iterations: int = 50,
    *,
    forward_only: bool = False,
    peak: bool = False,
    partial: bool = False,
    on_run: Callable[[int], object] = lambda done: None,
) -> Timing:
    """Times one net, or several in turns, on the data that their inputs hold.

    iterations       runs of each layer, and of each net as a whole, that count
    peak             measures what the threads can do at most as well
    partial, on_run  as of ``repeat``
    """
    watches = [_NetSamples(net, forward_only) for net in nets]

    def turn(run: int) -> None:
        for watch in watches if run % 2 == 0 else watches[::-1]:
            watch.run_layers()
            watch.run_whole()

    def forget() -> None:
        for watch in watches:
            watch.forget()

    done = repeat(turn, forget, iterations, partial=partial, on_run=on_run)
    return Timing([watch.result() for watch in watches], done, num_threads(), peak_flops() if peak else None)


def repeat(
    turn: Callable[[int], object],
    forget: Callable[[], object],
    iterations: int,
    *,
    partial: bool = False,
    on_run: Callable[[int], object] = lambda done: None,
) -> int:
    """Calls turn(0), turn(1) ... after some turns that do not count; returns how many counted.

    forget   drops the samples of turns that do not count
    partial  an interrupt (Ctrl-C) after the first turn that counts ends the turns, and is not raised
    on_run   called after each turn with how many there were: WARM_UP + iterations in the end

    raises UsageError for less than one iteration
    """
    if iterations < 1:
        raise UsageError(f"iterations must be at least 1, not {iterations}")
    for run in range(-WARM_UP, iterations):
        if run == 0:
            forget()
        try:
            turn(run)
            on_run(WARM_UP + run + 1)
        except KeyboardInterrupt:
            if not partial or run < 1:
                raise
            return run
    return iterations


class Passes:
    """The parts of a net that are run to be timed.

    forward   indices of the layers that compute
    backward  those that run backward, the last first; none with forward_only
    last      the last step of a run, as lifetimes count them
    reads_nothing   whether no layer reads data, so that a run of the whole net runs these parts alone
    """

    def __init__(self, net: Net, forward_only: bool) -> None:
        self.net = net
        self.forward = [i for i, layer in enumerate(net.layers) if not layer.IS_SOURCE]
        self.backward = [] if forward_only else [i for i in self.forward[::-1] if net.layer_need_backward[i]]
        self.reads_nothing = all(isinstance(layer, Input) for layer in net.layers if layer.IS_SOURCE)
        self.last = (2 if self.backward else 1) * len(net.layers) - 1

    def set_loss_diffs(self) -> None:
        """Puts the loss weights, from which a backward pass starts, into the diffs of the losses."""
        for i in self.backward:
            for top, weight in zip(self.net.tops[i], self.net.layer_loss_weights[i]):
                if weight:
                    top.diff[...] = weight


class _NetSamples:
    """The samples of one net: seconds of each layer that computes, by its index, and of the whole."""

    def __init__(self, net: Net, forward_only: bool) -> None:
        self.net = net
        self.passes = Passes(net, forward_only)
        self.fused = net.plan(fused=True)
        # steps with whole numbers hand bytes to each other in both plans
        whole = any(isinstance(step, IntegerStep) for step in self.fused.steps)
        self.single = net.new_plan(fused=True) if whole else net.plan(fused=False)
        self.forget()

    def forget(self) -> None:
        self.forward: dict[int, list[float]] = {i: [] for i in self.passes.forward}
        self.backward: dict[int, list[float]] = {i: [] for i in self.passes.backward}
        self.whole_forward: list[float] = []
        self.whole_backward: list[float] = []

    def run_layers(self) -> None:
        steps = self.single.steps
        with self.single.running(self.passes.last):
            forward = self.net.taping.steps_of(self.single)
            for i in self.passes.forward:
                self.forward[i].append(seconds_of(forward[i : i + 1]))
            self.passes.set_loss_diffs()
            for i in self.passes.backward:
                self.backward[i].append(seconds_of(steps[i : i + 1], backward=True))

    def run_whole(self) -> None:
        steps = self.fused.steps
        now = clock()
        with self.fused.running(self.passes.last):
            taped = self.net.taping.pass_of(self.fused) if self.passes.reads_nothing else None
            if taped is not None:
                start = now()
                taped.run()
                self.whole_forward.append(now() - start)
            else:
                self.whole_forward.append(seconds_of([steps[i] for i in self.passes.forward]))
            if self.passes.backward:
                self.passes.set_loss_diffs()
                self.whole_backward.append(seconds_of([steps[i] for i in self.passes.backward], backward=True))

    def result(self) -> NetTime:
        net = self.net
        return NetTime(
            name=net.name,
            model=net.definition.path or "",
            phase=pb.Phase.Name(net.phase),
            batch=batch_of(net),
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


def batch_of(net: Net) -> int:
    """Images in the first blob that its data layers make."""
    shapes = list(source_shapes(net).values())
    return shapes[0][0] if shapes and shapes[0] else 1


def seconds_of(steps: Sequence[Step], backward: bool = False) -> float:
    """Total seconds of the steps, run one after the other in the given order."""
    now = clock()
    start = now()
    for step in steps:
        if backward:
            step.backward()
        else:
            step.forward()
    return now() - start


def clock() -> Callable[[], float]:
    """The clock for timing computations: for a single thread its CPU time, which excludes time of other processes."""
    own = num_threads() == 1 and os.name == "posix"  # elsewhere it is too coarse
    return time.thread_time if own else time.perf_counter
