"""The pipeline: train, sparsify, compact, fine-tune, test and time, as stages with their files in one folder.

    baseline   trains the net without penalties, or takes trained weights; tests it
    sparsify   trains with group lasso; the controller adjusts its strengths (``sslnet.compress.control.controller``)
    compact    removes the channels that became zero
    finetune   trains the small net, on request with the baseline as teacher (``sslnet.compress.distillation.teacher``)
    test       tests the small net
    time       times both nets alternately

``state.json`` records the completed stages, their options and results (``state_file``). In a stage that trains, an
interrupted run resumes bit-identically at the last snapshot (``training``).

Ref: Wen et al. 2016, section 3 and 4: learn the structure from a trained net, then fine-tune the remaining weights
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.compaction.rebase import relocate
from sslnet.compress.compaction.sizes import total_size
from sslnet.compress.control.controller import StrengthController
from sslnet.compress.control.latency_model import LatencyBenchmark, LatencyComparison
from sslnet.compress.distillation.teacher import PREFIX, teach
from sslnet.compress.evaluation import find_trial
from sslnet.compress.pipeline.default_groups import add_groups, declared, set_strengths
from sslnet.compress.pipeline.schedule import STRENGTHS, check_turnable, fit_schedule, quiet
from sslnet.compress.pipeline.state_file import LOCK, STATE, read_results, write_results
from sslnet.compress.pipeline.task import Task
from sslnet.compress.pipeline.training import Watch, remove, remove_snapshots, train_stage
from sslnet.errors import UsageError, WeightsError
from sslnet.files import atomic_write, make_folder, remove_remains, resolve, sole_user
from sslnet.net.net import Net
from sslnet.net.weights import read_weights, save_arrays
from sslnet.prototxt import Definition
from sslnet.solver.callbacks import Monitor
from sslnet.solver.solver import Solver
from sslnet.solver.solver_definition import check_aims, find_nets, named_weights, net_state
from sslnet.timing.layerwise import open_net, time_nets

STAGES = ("baseline", "sparsify", "compact", "finetune", "test", "time")
FILES = {"baseline": "1_baseline", "sparsify": "2_sparsify", "compact": "3_compact", "finetune": "4_finetune"}
"""Prefix of the file names of each stage."""
SNAPSHOTS = 10
"""Number of snapshots in a stage if the solver gives no interval."""
RUNS = 30
"""Number of timed runs."""


class Pipeline:
    """Runs the stages of a task that are not done yet.

    monitor  receives the events of each solver
    watch    makes the context in which a solver runs, for example one that stops it on signals
    tell     called with a line of text when a stage begins
    raises   UsageError for a folder that belongs to another task, or a net that cannot be tested or made sparse
    """

    def __init__(
        self,
        task: Task,
        monitor: Monitor | None = None,
        watch: Watch = lambda solver: contextlib.nullcontext(),
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.task, self.monitor, self.watch, self.tell = task, monitor or Monitor(), watch, tell
        self.solver = task.solver_definition()
        said = self.solver.message.random_seed
        self.seed = task.seed if task.seed is not None else said if said >= 0 else 1
        self.definition = prototxt.upgrade_net(find_nets(self.solver)[0])
        param = self.solver.message
        self.state = net_state(self.definition, pb.TRAIN, param.train_state)
        self.trial = find_trial(self.solver, self.seed)
        self.trial.check()
        self.results = read_results(task.folder, task.options())
        """Results of the completed stages, by name."""

    # -- files and iterations --------------------------------------------------------------------------------------------------

    def iterations(self, stage: str) -> int:
        """Number of iterations that a stage trains."""
        return self.task.iterations_of(stage, self.solver.message.max_iter)

    def name(self, stage: str, suffix: str) -> str:
        """A file of a stage."""
        return os.path.join(self.task.folder, FILES[stage] + suffix)

    def weights(self, stage: str) -> str:
        """Path of the final weights of a stage."""
        if stage == "baseline" and self.task.weights is not None:
            return self.task.weights
        if stage == "finetune" and not self.iterations("finetune"):
            stage = "compact"
        return self.name(stage, ".caffemodel")

    # -- the stages --------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """The results of all stages, by name. raises Stopped when a solver was asked to stop"""
        if "sparsify" not in self.results:
            self._check_sparsity()
        folder, lock = self.task.folder, os.path.join(self.task.folder, LOCK)
        make_folder(lock)
        with sole_user(lock, folder):
            remove_remains(folder, STATE, "report", *FILES.values())
            self._save()
            return self._run_stages()

    def _save(self) -> None:
        write_results(self.task.folder, self.task.options(), self.results)

    def _run_stages(self) -> dict[str, Any]:
        for place, stage in enumerate(STAGES, 1):
            if stage not in self.results:
                self.tell(f"stage {place} of {len(STAGES)}: {stage}")
                self.results[stage] = getattr(self, f"_{stage}")()
                self._save()
            if stage in FILES:
                remove_snapshots(self.name(stage, ""))
        return self.results

    def _baseline(self) -> dict[str, Any]:
        self._write_net("baseline", self.definition.message)
        if self.task.weights is None:
            named = [str(resolve(w, self.solver.path, error=WeightsError)) for w in named_weights(self.solver)]
            self._train("baseline", named)
        return asdict(self.trial.score(self.weights("baseline")))

    def _sparsify(self) -> dict[str, Any]:
        added = self._write_net("sparsify", self._sparse_definition().message)
        steering = StrengthController(self.task.targets, self.tell)
        self._train("sparsify", [self.weights("baseline")], steering)
        score = self.trial.score(self.weights("sparsify"), added)
        return {"met": steering.met, "left": steering.remaining, "missed": steering.missed(), **asdict(score)}

    def _compact(self) -> dict[str, Any]:
        compaction = compact(
            self.definition,
            self.weights("sparsify"),
            level=self.trial.level,
            stages=self.trial.stages,
            seed=self.seed,
        )
        atomic_write(self.weights("compact"), compaction.weights.SerializeToString())
        if compaction.deploy is not None:
            self._write_net("compact", compaction.deploy, "_deploy.prototxt")
        self._write_net("compact", compaction.message)
        sizes = {
            side: total_size([getattr(layer, side) for layer in compaction.layers]) for side in ("before", "after")
        }
        return {
            "deploy": compaction.deploy is not None,
            "notes": compaction.notes,
            "parameters": [sizes["before"].parameters, sizes["after"].parameters],
            "flops": [sizes["before"].flops / compaction.batch, sizes["after"].flops / compaction.batch],
        }

    def _finetune(self) -> dict[str, Any]:
        message = prototxt.read_net(self.name("compact", ".prototxt")).message
        for layer in message.layer:  # a form chosen by timing may round differently in another run
            if layer.convolution_param.conv_mode == pb.ConvolutionParameter.AUTO:
                layer.convolution_param.ClearField("conv_mode")
        weights = self.weights("compact")
        if self.task.teach and self.iterations("finetune"):
            message, weights = self._taught(message, weights)
        prototxt.save(message, self.name("finetune", ".prototxt"))
        if self.iterations("finetune"):
            self._train("finetune", [weights])
        if weights != self.weights("compact"):
            alone = {k: v for k, v in read_weights(self.weights("finetune")).items() if not k.startswith(PREFIX)}
            save_arrays(alone, self.weights("finetune"), hdf5=False)
            remove(weights)
        return {"iterations": self.iterations("finetune")}

    def _taught(self, message: pb.NetParameter, weights: str) -> tuple[pb.NetParameter, str]:
        """The small net with the baseline as its teacher: (definition, file of the weights of both)."""
        small = prototxt.read_net(self.name("compact", ".prototxt")).with_message(message)
        taught = teach(
            small,
            weights,
            prototxt.read_net(self.name("baseline", ".prototxt")),
            self.weights("baseline"),
            level=self.state["level"],
            stages=self.state["stages"],
            seed=self.seed,
        )
        path = self.name("finetune", "_taught.caffemodel")
        save_arrays(taught.weights, path, hdf5=False)
        return taught.definition, path

    def _test(self) -> dict[str, Any]:
        small = prototxt.read_net(self.name("finetune", ".prototxt"))
        return asdict(self.trial.score(self.weights("finetune"), small))

    def _time(self) -> dict[str, Any]:
        pairs = [("baseline", self.weights("baseline")), ("compact", self.weights("finetune"))]
        settings = {"level": self.state["level"], "stages": self.state["stages"], "lean": True}
        nets = [open_net(self.name(stage, ".prototxt"), weights, **settings) for stage, weights in pairs]
        timing = time_nets(nets, RUNS)
        return {
            "batch": timing.nets[0].batch,
            "threads": timing.threads,
            "forward": [net.forward.median for net in timing.nets],
            "backward": [net.backward.median if net.backward else None for net in timing.nets],
            "bytes": [os.path.getsize(weights) for _, weights in pairs],
            "race": asdict(self._compare_latency()) if self.task.targets.of == "speedup" else None,
        }

    def _compare_latency(self) -> LatencyComparison:
        """Benchmarks the small net against the baseline, both as deployed."""
        benchmark = LatencyBenchmark(self.trial, self.task.targets.batch)
        suffix = "_deploy.prototxt" if self.results["compact"]["deploy"] else ".prototxt"
        return benchmark.compare_definition(
            prototxt.read_net(self.name("compact", suffix)).message, self.weights("finetune")
        )

    # -- definitions -------------------------------------------------------------------------------------------------

    def _sparse_definition(self) -> Definition:
        """A copy of the net with groups to penalise: its own, or default groups if it declares none."""
        message = copy.deepcopy(self.definition.message)
        if not declared(message) and not add_groups(self.definition.with_message(message), self.state):
            raise UsageError(
                f"{self.definition.path}: only the last layer has weights, so there is nothing to remove",
                hint="sslnet compress removes filters and neurons of Convolution and InnerProduct layers before it",
            )
        return self.definition.with_message(message)

    def _write_net(self, stage: str, message: pb.NetParameter, suffix: str = ".prototxt") -> Definition:
        """Writes a definition, with file names adapted to its folder."""
        message, path = copy.deepcopy(message), self.name(stage, suffix)
        relocate(message, self.definition.path or os.curdir, path)
        prototxt.save(message, path)
        return prototxt.read_net(path)

    def _stage_solver(self, stage: str, net: pb.NetParameter) -> pb.SolverParameter:
        """The solver's message for a stage, without the net."""
        param = pb.SolverParameter()
        param.CopyFrom(self.solver.message)
        quiet(param)
        for name in ("net", "net_param"):
            param.ClearField(name)
        fit_schedule(param, self.iterations(stage))
        if stage == "sparsify":
            set_strengths(param, net)
        else:
            for name in STRENGTHS:  # strengths explicitly set to 0 are kept
                setattr(param, name, 0.0)
            param.ClearField("group_lasso_scale_by_size")
            param.ClearField("group_lasso_settle")
        param.random_seed, param.snapshot_format = self.seed, pb.SolverParameter.BINARYPROTO
        param.snapshot = param.snapshot or max(1, param.max_iter // SNAPSHOTS)
        param.display = param.display or max(1, param.max_iter // 20)
        return param

    def _check_sparsity(self) -> None:
        """Raises UsageError if there are no groups to penalise; call it before training."""
        definition = self._sparse_definition()
        param = self._stage_solver("sparsify", definition.message)
        net = Net(definition, phase=pb.TRAIN, level=self.state["level"], stages=self.state["stages"], lean=True)
        check_aims(self.solver, net)
        param.net_param.CopyFrom(definition.message)
        solver = Solver(self.solver.with_message(param), net=net)
        check_turnable(solver)
        if "baseline" not in self.results:
            StrengthController(self.task.targets).start(solver)

    def _train(self, stage: str, weights: list[str], steering: StrengthController | None = None) -> None:
        """Trains the net that the stage wrote, or resumes at the last snapshot, and writes its weights."""
        path = self.name(stage, ".prototxt")
        param = self._stage_solver(stage, prototxt.read_net(path).message)
        param.net = path
        train_stage(
            param,
            self.name(stage, ""),
            weights,
            monitor=self.monitor,
            watch=self.watch,
            tell=self.tell,
            steering=steering,
        )
