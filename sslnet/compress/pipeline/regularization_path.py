"""Regularization path: trains a net with increasing strengths of its penalties, and measures error and size at each.

Each point of the path multiplies all strengths by one factor. It starts from the weights of the previous point, without
momentum; the net is trained, tested, compacted and timed. The result of a point is written when it is complete, so that
an interrupted path continues with the next point.

Ref: Friedman, Hastie, Tibshirani 2010, section 2.5 (warm starts along a path)
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sslnet import prototxt
from sslnet.compress.compaction.build import smaller_definition
from sslnet.compress.compaction.compact import Compaction, compact
from sslnet.compress.compaction.sizes import total_size
from sslnet.compress.evaluation import Trial, find_trial
from sslnet.compress.pipeline.fingerprint import file_mark, text_mark
from sslnet.compress.pipeline.schedule import check_started, check_turnable, fit_schedule, quiet
from sslnet.compress.pipeline.training import Stopped, Watch, save_trained
from sslnet.errors import RunError, UsageError, WeightsError
from sslnet.files import atomic_write, make_folder
from sslnet.json_file import fields, number, read_json, whole
from sslnet.net.input_layers import fetch
from sslnet.net.weights import StoredWeights, stored_weights
from sslnet.prototxt import Definition
from sslnet.solver.callbacks import Monitor
from sslnet.solver.solver import Solver
from sslnet.solver.solver_definition import check_aims, find_nets
from sslnet.timing.layerwise import time_nets

ANEW = "delete it to train the point again"
"""The hint for a damaged file of a point."""


@dataclass(frozen=True)
class Point:
    """The result at one strength.

    factor      factor of all strengths; None for the initial net
    error, loss test results of the net, after fine-tuning if there is any
    flops, parameters   size of the compacted net, FLOPs per image
    seconds     median time of the compacted net's forward pass over the test net's batch
    speedup     time of the initial net, measured alternately, divided by that time
    weights     path of the weights, not compacted; None if none were written
    """

    factor: float | None
    error: float | None
    loss: float | None
    flops: float
    parameters: int
    seconds: float
    speedup: float
    weights: str | None = None

    @property
    def score(self) -> float:
        value = self.error if self.error is not None else self.loss
        assert value is not None
        return math.inf if math.isnan(value) else value


@dataclass
class Path:
    """The completed points, the initial net first. ended: reason why no stronger penalty was tried, or ""."""

    points: list[Point]
    ended: str = ""

    @property
    def measure(self) -> str:
        return "loss" if self.points and self.points[0].error is None else "error"

    def best(self, cost: str) -> list[bool]:
        """Whether each point is Pareto-optimal in error and ``cost``.

        cost   "flops", "parameters" or "seconds"
        """
        pairs = [(point.score, getattr(point, cost)) for point in self.points]
        return [
            not any(other != pair and other[0] <= pair[0] and other[1] <= pair[1] for other in pairs) for pair in pairs
        ]


@dataclass(frozen=True)
class PathPlan:
    """Settings of a regularization path.

    weights     .caffemodel to start from; None: the weights that the solver names, else its fillers
    factors     factors of the strengths, ascending, > 0
    iterations  number for each point;  finetune: number for a copy, without penalties, with its zeros kept
    prefix      prefix of the written files
    runs        number of timed runs
    """

    definition: Definition
    weights: str | None
    factors: Sequence[float]
    iterations: int
    finetune: int
    prefix: str
    runs: int = 20
    seed: int = 1

    def mark(self) -> str:
        """Fingerprint of the settings; a written point belongs to this path if it has the same one."""
        train, tests = find_nets(self.definition)
        texts = [prototxt.write(net.message) for net in (self.definition, train, *tests)]
        weights = file_mark(self.weights) if self.weights else ""
        return text_mark("\0".join([*texts, weights, str(self.iterations), str(self.finetune), str(self.seed)]))


def geometric(first: float, last: float, count: int) -> list[float]:
    """A geometric sequence of ``count`` factors from first to last."""
    if count == 1:
        return [first]
    return [first * (last / first) ** (k / (count - 1)) for k in range(count)]


def follow(
    plan: PathPlan,
    monitor: Monitor | None = None,
    watch: Watch = lambda solver: contextlib.nullcontext(),
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Computes the path point by point; reads the points that are already written.

    raises UsageError when the files belong to another path, Stopped when a solver was asked to stop
    """
    return _Follower(plan, monitor or Monitor(), watch, tell).follow()


class _Follower:
    def __init__(self, plan: PathPlan, monitor: Monitor, watch: Watch, tell: Callable[[str], None]) -> None:
        self.plan, self.monitor, self.watch, self.tell = plan, monitor, watch, tell
        self.trial: Trial = find_trial(plan.definition, plan.seed)
        self.mark = plan.mark()

    def follow(self) -> Path:
        plan = self.plan
        self.trial.check()
        make_folder(plan.prefix)
        known = [self._read(k) for k in range(len(plan.factors) + 1)]
        start = self._start()
        path, weights = Path([]), start
        for k, factor in enumerate([None, *plan.factors]):
            record = known[k] or {"mark": self.mark, "factor": factor}
            if "point" not in record and "ended" not in record:
                record |= self._new(k, factor, weights, start, known[k] is not None)
                self._write(k, record)
                self.tell(self._line(k, record))
            if "ended" in record:
                path.ended = record["ended"]
                break
            path.points.append(_point(record["point"], self._name(k, "json")))
            weights = self._name(k, "caffemodel")
        return path

    def _write(self, k: int, record: dict[str, object]) -> None:
        atomic_write(self._name(k, "json"), json.dumps(record, indent=2).encode())

    def _line(self, k: int, record: dict[str, Any]) -> str:
        if "ended" in record:
            return str(record["ended"])
        point = _point(record["point"], self._name(k, "json"))
        what = f"point {k} of {len(self.plan.factors)}, strengths x {point.factor:.3g}" if k else "the net at the start"
        score = f"error {100 * point.error:.2f} %" if point.error is not None else f"loss {point.loss:.4g}"
        return f"{what}: {score}, {point.flops:,.0f} FLOPs, {point.parameters:,} parameters"

    def _name(self, k: int, suffix: str) -> str:
        return f"{self.plan.prefix}_point_{k}.{suffix}"

    def _read(self, k: int) -> dict[str, Any] | None:
        """The written record of a point; None if there is none."""
        name = self._name(k, "json")
        if not os.path.lexists(name):
            return None
        record = fields(read_json(name, error=WeightsError, hint=ANEW))
        factor = self.plan.factors[k - 1] if k else None
        if record.get("mark") != self.mark or record.get("factor") != factor:
            raise UsageError(
                f"{name} belongs to another path: other options, another net, solver or start",
                hint="use the original command to continue it, or another --output",
            )
        if "point" in record:
            _point(record["point"], name)
        elif not isinstance(record.get("ended", ""), str):
            raise WeightsError("is damaged: the reason why the path ended is not text", path=name, hint=ANEW)
        return record

    # -- a point -----------------------------------------------------------------------------------------------------

    def _start(self) -> str:
        """Path of the initial weights, written from the fillers if none are given."""
        name = self._name(0, "caffemodel")
        solver = self._solver(1, 0, [self.plan.weights] if self.plan.weights else [], named=not self.plan.weights)
        check_turnable(solver)
        check_aims(solver.definition, solver.net)
        if self._read(0) is None:
            solver.net.save(name)
        return name

    def _new(self, k: int, factor: float | None, weights: str, start: str, trained: bool) -> dict[str, Any]:
        tested = weights if factor is None else self._train(k, factor, weights, trained)
        stored, trial = stored_weights(tested), self.trial
        try:
            compaction = compact(trial.definition, stored, level=trial.level, stages=trial.stages, seed=self.plan.seed)
        except RunError as error:
            if factor is None:
                raise
            return {"ended": f"strengths x {factor:.3g} and more remove the whole net: {error.message}"}
        return {"point": asdict(self._measured(factor, tested, stored, compaction, start))}

    def _train(self, k: int, factor: float, weights: str, trained: bool) -> str:
        """Trains a point and, if requested, fine-tunes a copy; returns the path of the resulting weights.

        trained   whether everything but the fine-tuning was completed before an interruption
        """
        name, tuned = self._name(k, "caffemodel"), f"{self.plan.prefix}_point_{k}_finetuned.caffemodel"
        if not trained:
            solver = self._solver(self.plan.iterations, k, [weights])
            solver.scale_penalties(factor)
            self._run(solver)
            save_trained(solver, name)
            self._write(k, {"mark": self.mark, "factor": factor})
        if not self.plan.finetune:
            return name
        solver = self._solver(self.plan.finetune, k, [name])
        solver.keep_zeros()
        self._run(solver)
        save_trained(solver, tuned)
        return tuned

    def _solver(self, iterations: int, k: int, weights: Sequence[str], named: bool = False) -> Solver:
        definition = self.plan.definition.with_message(copy.deepcopy(self.plan.definition.message))
        param = definition.message
        names = list(param.weights)
        quiet(param)
        param.weights.extend(names if named else [])
        fit_schedule(param, iterations)
        param.snapshot, param.random_seed = 0, self.plan.seed + k
        solver = Solver(definition, weights=weights, monitor=self.monitor, lean=True)
        check_started(solver, weights)
        return solver

    def _run(self, solver: Solver) -> None:
        with self.watch(solver):
            self.monitor.on_start(solver)
            solver.step(solver.param.max_iter)
            stopped = solver.iter < solver.param.max_iter
            self.monitor.on_finish(solver, stopped)
        if stopped:
            raise Stopped

    def _measured(
        self, factor: float | None, path: str, weights: StoredWeights, compaction: Compaction, start: str
    ) -> Point:
        """Measures the point of ``weights``, read from ``path``.  start: path of the initial weights"""
        small = smaller_definition(compaction.message, self.trial.definition.path)
        nets = [self.trial.net(start), self.trial.net(compaction.weights, small)]
        for net in nets:
            fetch(net)
        times = [net.forward.median for net in time_nets(nets, self.plan.runs, forward_only=True).nets]
        size = total_size([layer.after for layer in compaction.layers])
        score = self.trial.score(weights)
        return Point(
            factor,
            score.error,
            score.loss,
            size.flops / compaction.batch,
            size.parameters,
            times[1],
            times[0] / times[1] if times[1] else math.inf,
            path,
        )


def _point(value: object, path: str) -> Point:
    """Reads a point from its record. raises WeightsError for an incomplete one"""
    known = fields(value)
    factor, error, flops, seconds, speedup = (
        number(known.get(name)) for name in ("factor", "error", "flops", "seconds", "speedup")
    )
    loss = known.get("loss")
    loss = loss if isinstance(loss, float) else number(loss)  # of a net that diverged it is inf or NaN
    parameters, weights = whole(known.get("parameters")), known.get("weights")
    if flops is None or seconds is None or parameters is None or (error is None and loss is None):
        raise WeightsError("is damaged: it lacks what was measured of the point", path=path, hint=ANEW)
    weights = weights if isinstance(weights, str) else None
    return Point(factor, error, loss, flops, parameters, seconds, math.inf if speedup is None else speedup, weights)
