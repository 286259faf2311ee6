"""The latency model: predicts the time of a net without its zero groups from a table of layer times.

Times are those of the forward pass as deployed: phase TEST, no losses, weights packed once, a batch of random numbers.
The table holds the seconds of each layer as a function of its remaining fraction, measured once on nets with a part of
all groups set to zero, and interpolated linearly. The prediction is verified, and corrected, by an A/B benchmark that runs
the compacted net and the whole net alternately.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.compaction.deploy import deploy_definition
from sslnet.compress.control.estimate import RemainingPart, remaining_parts
from sslnet.compress.control.penalty_handles import PenaltyHandle, thinned
from sslnet.compress.evaluation import Trial, find_trial
from sslnet.errors import RunError
from sslnet.kernels.runtime.threads import num_threads
from sslnet.net.graph import PhaseState
from sslnet.net.input_layers import fill_inputs, source_shapes, with_inputs
from sslnet.net.net import Net
from sslnet.net.weights import StoredWeights, WeightSource, copy_all_weights
from sslnet.timing.layerwise import WARM_UP, NetTime, clock, time_nets

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

THIN = (0.5, 0.25, 0.1, 0.0)
"""Fractions of the groups that remain in the measured nets, in addition to the whole net."""
SECONDS = 0.4
"""Duration for which a net is timed, in seconds, limited to LEAST to MOST runs."""
LEAST, MOST = 9, 200
LOW = 5
"""Percentile of the runs that counts as undisturbed."""


@dataclass(frozen=True)
class LatencyComparison:
    """Seconds of the forward pass of the whole and of the compacted net over a batch, run alternately (``fastest``)."""

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
    """Seconds of each net's forward pass, run alternately: a low percentile (LOW), as other load only adds time; of
    one thread, by its own clock."""
    inputs: list[dict[str, Any]] = [{name: np.array(net.blobs[name].data) for name in net.inputs} for net in nets]
    samples, now = np.empty((runs, len(nets))), clock()
    for run in range(-WARM_UP, runs):
        for k in range(len(nets)) if run % 2 else reversed(range(len(nets))):
            start = now()
            nets[k].forward(**inputs[k])
            samples[max(0, run), k] = now() - start
    return [float(low) for low in np.percentile(samples, LOW, axis=0)]


class LatencyBenchmark:
    """An A/B benchmark of a trial's net, as deployed, against smaller versions of it.

    batch  number of images; None: the batch size of the trial's data
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
        """Builds the compacted net for ``weights``. raises RunError if nothing remains"""
        trial = self.trial
        compaction = compact(trial.definition, weights, level=trial.level, stages=trial.stages, seed=trial.seed)
        return self._net(compaction.deploy or compaction.message, compaction.weights)

    def compare_definition(self, message: pb.NetParameter, weights: WeightSource) -> LatencyComparison:
        """Times a small net, given by its deployment definition, against the whole net."""
        return self.compare(self._net(message, weights))

    def compare(self, small: Net) -> LatencyComparison:
        """Times a net made by ``compacted`` against the whole net."""
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
    """Times the compacted net of a solver against the whole net. raises RunError if nothing remains"""
    benchmark = LatencyBenchmark(find_trial(solver.definition, solver.seed), batch)
    return benchmark.compare(benchmark.compacted(StoredWeights.of(solver.net.params)))


class LatencyModel:
    """Predicts the remaining fraction of the net's time from a table; verifies it by an A/B benchmark.

    left        (points, layers + 1) remaining fraction of each layer; last column: the constant part
    seconds     (points, layers + 1) time of each layer, and of the constant part
    correction  factor of predictions, from the last benchmark
    """

    def __init__(self, left: np.ndarray, seconds: np.ndarray, correction: float = 1.0) -> None:
        self.left, self.seconds, self.correction = left, seconds, correction

    @classmethod
    def measure(cls, solver: Solver, handles: Sequence[PenaltyHandle], benchmark: LatencyBenchmark) -> LatencyModel:
        """Builds the table by timing the net with some of its groups removed; leaves its weights unchanged."""
        smaller = [pair for part in THIN if (pair := _thinned(solver, handles, benchmark, part)) is not None]
        nets = [benchmark.whole, *(net for net, _ in smaller)]
        wholes = fastest(nets, benchmark.runs)
        times = time_nets(nets, benchmark.runs, forward_only=True).nets
        lefts = [[RemainingPart(1.0, 1.0)] * len(solver.net.layers), *(found for _, found in smaller)]
        matrix = np.array([[part.matrix for part in found] + [1.0] for found in lefts])
        return cls(matrix, np.array([_seconds(solver.net, *each) for each in zip(times, wholes)]))

    def remaining_time(self, found: Sequence[RemainingPart]) -> float:
        """Predicted fraction of the whole net's time for a net with these remaining parts."""
        total = self.seconds[0, -1]
        for i, part in enumerate(found):
            order = np.argsort(self.left[:, i], kind="stable")
            total += np.interp(part.matrix, self.left[order, i], self.seconds[order, i])
        return float(self.correction * total / self.seconds[0].sum())

    def verify(self, solver: Solver, found: Sequence[RemainingPart], batch: int | None) -> LatencyComparison | None:
        """Benchmarks the current net compacted, and corrects later predictions; None if nothing remains."""

        def compare() -> LatencyComparison | None:
            try:
                return compare_latency(solver, batch)
            except RunError:
                return None

        comparison = solver.batches.agree(compare)
        if comparison is None:
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
    solver: Solver, handles: Sequence[PenaltyHandle], benchmark: LatencyBenchmark, part: float
) -> tuple[Net, list[RemainingPart]] | None:
    """The compacted net with a fraction of its groups, and its remaining parts; None if that disconnects the net."""
    with thinned(handles, [handle.first(part) for handle in handles]):
        try:
            return benchmark.compacted(StoredWeights.of(solver.net.params)), remaining_parts(solver.net)
        except RunError:
            return None


def _seconds(net: Net, found: NetTime, seconds: float) -> list[float]:
    """Times of the net's layers and of the rest, scaled such that their sum is the measured time of the whole pass."""
    single = {layer.name: layer.forward.low for layer in found.layers if layer.forward is not None}
    whole = seconds / max(sum(single.values()), 1e-12)
    own = [whole * single.pop(name, 0.0) for name in net.layer_names]
    return [*own, whole * sum(single.values())]
