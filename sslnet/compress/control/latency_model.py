"""The latency model: how fast a net would run without what is zero, from a table of its layers' times.

Times are those of the forward pass as deployed: phase TEST, losses left out, weights packed once, a batch of random numbers.
The table holds, for each layer, seconds against the part of it that remains, measured once on nets in which a part of all
groups is zero, with linear interpolation between them. The prediction is verified, and corrected, by an A/B benchmark: the
net that is really compacted and the whole one run in turns.
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
from sslnet.compress.control.estimate import RemainingPart, remaining_parts
from sslnet.compress.control.penalty_handles import Lever, thinned
from sslnet.compress.evaluation import Trial, find_trial
from sslnet.errors import RunError
from sslnet.kernels.runtime.threads import num_threads
from sslnet.net.graph import PhaseState
from sslnet.net.input_layers import fill_inputs, source_shapes, with_inputs
from sslnet.net.net import Net
from sslnet.net.weights import StoredWeights, WeightSource, copy_all_weights
from sslnet.timing.layerwise import WARM_UP, NetTime, time_nets

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

THIN = (0.5, 0.25, 0.1, 0.0)
"""Parts of the groups that remain in the nets of the table, beside the whole one."""
SECONDS = 0.4
"""How long a net is timed, as far as LEAST and MOST runs allow."""
LEAST, MOST = 9, 200
LOW = 5
"""Percentile of the runs that counts as undisturbed."""


@dataclass(frozen=True)
class LatencyComparison:
    """Seconds of the forward pass over a batch of the whole and the compacted net, in turns (``fastest``)."""

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


class LatencyBenchmark:
    """An A/B benchmark of the net of a trial, as it is deployed, and smaller ones.

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

    def compacted(self, weights: WeightSource) -> Net:
        """The net without what is zero in ``weights``. raises RunError where nothing remains"""
        trial = self.trial
        compaction = compact(trial.definition, weights, level=trial.level, stages=trial.stages, seed=trial.seed)
        return self._net(compaction.deploy or compaction.message, compaction.weights)

    def compare_definition(self, message: pb.NetParameter, weights: WeightSource) -> LatencyComparison:
        """Times a small net, given as it is deployed, against the whole one."""
        return self.compare(self._net(message, weights))

    def compare(self, small: Net) -> LatencyComparison:
        """Times a net of this benchmark against the whole one."""
        whole, other = fastest([self.whole, small], self.runs)
        return LatencyComparison(self.batch, num_threads(), whole, other)

    def _net(self, message: pb.NetParameter, weights: WeightSource | None) -> Net:
        trial = self.trial
        definition = with_inputs(trial.definition.with_message(message), self.shapes)
        net = Net(definition, phase=pb.TEST, level=trial.level, stages=trial.stages, seed=trial.seed, lean=True)
        fill_inputs(net, trial.seed)
        if weights is not None:
            copy_all_weights(net.params, weights)
        for fused in (False, True):
            net.plan(fused=fused).hold_weights(True)
        return net


def compare_latency(solver: Solver, batch: int | None) -> LatencyComparison:
    """Times what a solver has trained, compacted, against the whole net. raises RunError where nothing remains"""
    benchmark = LatencyBenchmark(find_trial(solver.definition, solver.seed), batch)
    return benchmark.compare(benchmark.compacted(StoredWeights.of(solver.net.params)))


class LatencyModel:
    """Predicts the part of the whole net's time that remains, from a table; verifies it by an A/B benchmark.

    left        (points, layers + 1) part of each layer that remains, the last column for what is always there
    seconds     (points, layers + 1)
    correction  what predictions are multiplied by, from the last benchmark
    """

    def __init__(self, left: np.ndarray, seconds: np.ndarray, correction: float = 1.0) -> None:
        self.left, self.seconds, self.correction = left, seconds, correction

    @classmethod
    def measure(cls, solver: Solver, handles: Sequence[Lever], benchmark: LatencyBenchmark) -> LatencyModel:
        """Measures the net without some of its groups, a few times; its weights are then what they were."""
        smaller = [pair for part in THIN if (pair := _thinned(solver, handles, benchmark, part)) is not None]
        nets = [benchmark.whole, *(net for net, _ in smaller)]
        wholes = fastest(nets, benchmark.runs)
        times = time_nets(nets, benchmark.runs, forward_only=True).nets
        lefts = [[RemainingPart(1.0, 1.0)] * len(solver.net.layers), *(found for _, found in smaller)]
        matrix = np.array([[part.matrix for part in found] + [1.0] for found in lefts])
        return cls(matrix, np.array([_seconds(solver.net, *each) for each in zip(times, wholes)]))

    def remaining_time(self, found: Sequence[RemainingPart]) -> float:
        """The part of the whole net's time that a net with these parts takes."""
        total = self.seconds[0, -1]
        for i, part in enumerate(found):
            order = np.argsort(self.left[:, i], kind="stable")
            total += np.interp(part.matrix, self.left[order, i], self.seconds[order, i])
        return float(self.correction * total / self.seconds[0].sum())

    def verify(self, solver: Solver, found: Sequence[RemainingPart], batch: int | None) -> LatencyComparison | None:
        """Benchmarks the net as it is now and corrects later predictions; None where nothing remains."""
        try:
            comparison = compare_latency(solver, batch)
        except RunError:
            return None
        self.correction /= comparison.speedup * self.remaining_time(found)
        return comparison

    def state(self) -> dict[str, np.ndarray]:
        return {"left": self.left, "seconds": self.seconds, "correction": np.array([self.correction])}

    @classmethod
    def of_state(cls, state: Mapping[str, np.ndarray], layers: int) -> LatencyModel:
        left, seconds = (np.array(state[name], np.float64).reshape(-1, layers + 1) for name in ("left", "seconds"))
        return cls(left, seconds, float(state["correction"].reshape(-1)[0]))


def _thinned(
    solver: Solver, handles: Sequence[Lever], benchmark: LatencyBenchmark, part: float
) -> tuple[Net, list[RemainingPart]] | None:
    """The compacted net with a part of the groups, and what remains of the layers; None where that cuts the net in two."""
    with thinned(handles, [lever.first(part) for lever in handles]):
        try:
            return benchmark.compacted(StoredWeights.of(solver.net.params)), remaining_parts(solver.net)
        except RunError:
            return None


def _seconds(net: Net, found: NetTime, seconds: float) -> list[float]:
    """The time of each of the net's layers, and of all else, so that the sum is the time of the net run at once."""
    single = {layer.name: layer.forward.low for layer in found.layers if layer.forward is not None}
    whole = seconds / max(sum(single.values()), 1e-12)
    own = [whole * single.pop(name, 0.0) for name in net.layer_names]
    return [*own, whole * sum(single.values())]
