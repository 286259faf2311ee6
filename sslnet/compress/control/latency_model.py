"""How fast a net would run without what is zero: a table of its layers' times, measured once, and races of compacted nets.

The forward pass is that of deployment: phase TEST, losses left out, weights packed once, a batch of random numbers. The
table holds, for each layer, seconds against the part of it that is left, for nets in which a part of all groups is zero;
between these the times are taken as straight lines. What the table says is put right by races, in which the net that is
really compacted and the whole one take turns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.compaction.deploy import deploy_definition
from sslnet.compress.control.estimate import RemainingPart, parts
from sslnet.compress.control.penalty_handles import Lever, thinned
from sslnet.compress.evaluation import Trial, find_trial
from sslnet.errors import RunError
from sslnet.kernels.runtime.threads import num_threads
from sslnet.net.graph import PhaseState
from sslnet.net.input_layers import fill_inputs, source_shapes, with_inputs
from sslnet.net.net import Net
from sslnet.net.weights import StoredWeights, WeightSource, copy_all_weights
from sslnet.prototxt import Definition
from sslnet.timing.layerwise import WARM_UP, NetTime, time_nets

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

THIN = (0.5, 0.25, 0.1, 0.0)
"""Parts of the groups that are left in the nets of the table, beside the whole one."""
SECONDS = 0.4
"""That a net is timed for, as far as LEAST and MOST runs allow."""
LEAST, MOST = 9, 200
LOW = 5
"""Percentile of the runs that counts as undisturbed."""


@dataclass(frozen=True)
class Race:
    """Seconds of the forward pass over a batch, in runs that take turns: those of undisturbed runs (``fastest``)."""

    batch: int
    threads: int
    whole: float
    small: float

    @property
    def speedup(self) -> float:
        return self.whole / self.small

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        times = f"{1e3 * self.whole:.3g} ms and {1e3 * self.small:.3g} ms"
        return f"{self.speedup:.2f} times as fast ({times}, forward, batch {self.batch}, {threads})"


def fastest(nets: Sequence[Net], runs: int) -> list[float]:
    """Seconds of each net's forward pass, in runs that take turns: the low end, for a busy machine only ever adds to it."""
    inputs: list[dict[str, Any]] = [{name: np.array(net.blobs[name].data) for name in net.inputs} for net in nets]
    samples = np.empty((runs, len(nets)))
    for run in range(-WARM_UP, runs):
        for k in range(len(nets)) if run % 2 else reversed(range(len(nets))):
            start = time.perf_counter()
            nets[k].forward(**inputs[k])
            samples[max(0, run), k] = time.perf_counter() - start
    return [float(low) for low in np.percentile(samples, LOW, axis=0)]


class Track:
    """The net of a trial as it is deployed, and smaller ones beside it.

    batch  images; None: those of the trial's data
    """

    def __init__(self, trial: Trial, batch: int | None = None) -> None:
        self.trial = trial
        tested = Net(trial.definition, phase=pb.TEST, level=trial.level, stages=trial.stages, lean=True)
        found = source_shapes(tested)
        self.batch = batch or next((shape[0] for shape in found.values() if shape), 1)
        self.shapes = {name: (self.batch, *shape[1:]) for name, shape in found.items()}
        deployed = deploy_definition(trial.definition, PhaseState(pb.TEST, trial.level, trial.stages), found)
        self.whole = self._net(deployed or trial.definition.message, None)
        (first,) = fastest([self.whole], LEAST)
        self.runs = int(np.clip(SECONDS / max(first, 1e-9), LEAST, MOST))

    def small(self, weights: WeightSource) -> Net:
        """Without what is zero in ``weights``. raises RunError where nothing is left"""
        trial = self.trial
        compaction = compact(trial.definition, weights, level=trial.level, stages=trial.stages, seed=trial.seed)
        return self._net(compaction.deploy or compaction.message, compaction.weights)

    def race(self, message: pb.NetParameter, weights: WeightSource) -> Race:
        """A small net, as it is deployed, against the whole one."""
        return self.against(self._net(message, weights))

    def against(self, small: Net) -> Race:
        whole, other = fastest([self.whole, small], self.runs)
        return Race(self.batch, num_threads(), whole, other)

    def _net(self, message: pb.NetParameter, weights: WeightSource | None) -> Net:
        trial: Trial = self.trial
        definition: Definition = with_inputs(trial.definition.with_message(message), self.shapes)
        net = Net(definition, phase=pb.TEST, level=trial.level, stages=trial.stages, seed=trial.seed, lean=True)
        fill_inputs(net, trial.seed)
        if weights is not None:
            copy_all_weights(net.params, weights)
        for fused in (False, True):
            net.plan(fused=fused).hold_weights(True)
        return net


def race_of(solver: Solver, batch: int | None) -> Race:
    """What a solver has trained, compacted, against the whole net. raises RunError where nothing is left"""
    track = Track(find_trial(solver.definition, solver.seed), batch)
    return track.against(track.small(StoredWeights.of(solver.net.params)))


class Clock:
    """Says which part of the time a net would take, from a table; and asks a race whether that is so.

    left       (points, layers + 1) part of each layer that is left, the last column for what is always there
    seconds    (points, layers + 1)
    correction what the table's answer is multiplied by, after a race
    """

    def __init__(self, left: np.ndarray, seconds: np.ndarray, correction: float = 1.0) -> None:
        self.left, self.seconds, self.correction = left, seconds, correction

    @classmethod
    def measure(cls, solver: Solver, levers: Sequence[Lever], track: Track) -> Clock:
        """Thins the net out and measures what is left, a few times; its weights are then what they were."""
        smaller = [pair for part in THIN if (pair := _thinned(solver, levers, track, part)) is not None]
        nets = [track.whole, *(net for net, _ in smaller)]
        wholes = fastest(nets, track.runs)
        times = time_nets(nets, track.runs, forward_only=True).nets
        lefts = [[RemainingPart(1.0, 1.0)] * len(solver.net.layers), *(found for _, found in smaller)]
        matrix = np.array([[part.matrix for part in found] + [1.0] for found in lefts])
        return cls(matrix, np.array([_seconds(solver.net, *each) for each in zip(times, wholes)]))

    def share(self, found: Sequence[RemainingPart]) -> float:
        """The part of the whole net's time."""
        total = self.seconds[0, -1]
        for i, part in enumerate(found):
            order = np.argsort(self.left[:, i], kind="stable")
            total += np.interp(part.matrix, self.left[order, i], self.seconds[order, i])
        return float(self.correction * total / self.seconds[0].sum())

    def race(self, solver: Solver, found: Sequence[RemainingPart], batch: int | None) -> Race | None:
        """Measures the net as it is now and puts the table right; None where nothing is left."""
        try:
            race = race_of(solver, batch)
        except RunError:
            return None
        self.correction /= race.speedup * self.share(found)
        return race

    def state(self) -> dict[str, np.ndarray]:
        return {"left": self.left, "seconds": self.seconds, "correction": np.array([self.correction])}

    @classmethod
    def of_state(cls, state: Mapping[str, np.ndarray], layers: int) -> Clock:
        left, seconds = (np.array(state[name], np.float64).reshape(-1, layers + 1) for name in ("left", "seconds"))
        return cls(left, seconds, float(state["correction"].reshape(-1)[0]))


def _thinned(
    solver: Solver, levers: Sequence[Lever], track: Track, part: float
) -> tuple[Net, list[RemainingPart]] | None:
    """The small net with a part of the groups, and what is left of the layers; None where that cuts the net in two."""
    with thinned(levers, [lever.first(part) for lever in levers]):
        try:
            return track.small(StoredWeights.of(solver.net.params)), parts(solver.net)
        except RunError:
            return None


def _seconds(net: Net, found: NetTime, seconds: float) -> list[float]:
    """Of the net's layers, and of all else, so that the sum is the time of the net run at once."""
    single = {layer.name: layer.forward.low for layer in found.layers if layer.forward is not None}
    whole = seconds / max(sum(single.values()), 1e-12)
    own = [whole * single.pop(name, 0.0) for name in net.layer_names]
    return [*own, whole * sum(single.values())]
