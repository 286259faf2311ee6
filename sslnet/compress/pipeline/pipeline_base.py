"""The base of the pipeline: names of files, numbers of iterations, definitions, and training within a stage."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import Compaction, compact
from sslnet.compress.compaction.rebase import relocate
from sslnet.compress.control.controller import StrengthController
from sslnet.compress.evaluation import find_trial
from sslnet.compress.pipeline.controls import CONTROLS, baseline_length, control_lengths
from sslnet.compress.pipeline.default_groups import FLOOR, declared, set_strengths
from sslnet.compress.pipeline.method import choose_method
from sslnet.compress.pipeline.pruning_rounds import PruneSettings
from sslnet.compress.pipeline.schedule import STRENGTHS, fit_schedule, quiet
from sslnet.compress.pipeline.state_file import read_results, write_results
from sslnet.compress.pipeline.task import ROUNDS, SHORTEST_ROUND, Task
from sslnet.compress.pipeline.training import Watch, train_stage
from sslnet.errors import UsageError
from sslnet.prototxt import Definition
from sslnet.solver.callbacks import Monitor
from sslnet.solver.solver_definition import find_nets, net_state

FILES = {
    "baseline": "1_baseline",
    "sparsify": "2_sparsify",
    "prune": "2_prune",
    "compact": "3_compact",
    "finetune": "4_finetune",
    "dense_control": "5_dense_control",
    "scratch_control": "6_scratch_control",
}
"""Prefix of the file names of each stage."""
GENTLE = ("prune", "finetune", "dense_control")
"""Stages whose weights are good already: with the method prune they have a schedule and a rate of their own."""
WARM_UP = 20
"""The learning rate rises over the first 1/WARM_UP of such a stage."""
SNAPSHOTS = 10
"""Number of snapshots in a stage if the solver gives no interval."""


class PipelineBase:
    """What the stages of a task have in common.

    monitor, watch, tell, raises  as for ``sslnet.compress.pipeline.pipeline.Pipeline``
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
        self.method, self.reason = choose_method(task, self.definition, self.state)
        if task.controls and not self.iterations("dense_control"):
            raise UsageError("controls are trained for as long as the small net, which gets no iterations")
        self.trial.check(labels=self.method != "one-shot")
        self.results = read_results(task.folder, task.options())
        """Results of the completed stages, by name."""

    @property
    def shrinks(self) -> str:
        """Name of the stage that makes channels zero: sparsify or prune."""
        return "sparsify" if self.method == "lasso" else "prune"

    @property
    def rounds(self) -> int:
        """Number of rounds of the prune stage: in short runs a single one leaves the better net."""
        if self.task.rounds is not None or self.method == "one-shot":
            return self.task.rounds or 1
        between = self.task.iterations_of("prune", self.solver.message.max_iter) // (ROUNDS - 1)
        return ROUNDS if between >= SHORTEST_ROUND else 1

    @property
    def teaches(self) -> bool:
        """Whether the baseline teaches the small net."""
        return self.method == "prune" if self.task.teach is None else self.task.teach

    def iterations(self, stage: str) -> int:
        """Number of iterations that a stage trains."""
        if self.method == "one-shot" and stage != "baseline":
            return 0
        if self.method == "prune" and stage in ("prune", "finetune"):
            before, behind = (
                self.task.iterations_of(name, self.solver.message.max_iter) for name in ("prune", "finetune")
            )
            if self.rounds == 1:  # all iterations are behind the only round
                before, behind = 0, before + behind
            return before // max(1, self.rounds - 1) if stage == "prune" else behind
        if stage in CONTROLS:
            lengths = {"before": self.iterations_before_finetuning, "finetune": self.iterations("finetune")}
            return control_lengths(self.baseline_iterations, lengths)[stage]
        return self.task.iterations_of(stage, self.solver.message.max_iter)

    @property
    def iterations_before_finetuning(self) -> int:
        """Number of iterations of the stage that makes channels zero."""
        return self.iterations(self.shrinks) * (1 if self.shrinks == "sparsify" else self.rounds - 1)

    @property
    def baseline_iterations(self) -> int | None:
        """Number of iterations behind the baseline; None if its weights were given and nobody said."""
        return baseline_length(self.task, self.solver.message.max_iter)

    @property
    def pruning(self) -> PruneSettings:
        """Criterion, repair and images of the prune stage."""
        task = self.task
        given = {"by": task.by, "repair": task.repair, "share_out": task.share_out, "images": task.images}
        return PruneSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    def save(self) -> None:
        """Writes the results so far."""
        write_results(self.task.folder, self.task.options(), self.results)

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

    @property
    def own_groups(self) -> bool:
        """Whether the net declares no groups, so that the pipeline adds some."""
        return not declared(self.definition.message)

    def controller(self, tell: Callable[[str], None]) -> StrengthController:
        return StrengthController(self.task.targets, tell, FLOOR if self.own_groups else 0.0)

    def small_definition(self) -> Definition:
        """The small net as it is trained."""
        return trainable(prototxt.read_net(self.name("compact", ".prototxt")))

    def write_net(self, stage: str, message: pb.NetParameter) -> Definition:
        """Writes the definition of a stage, made from the task's net."""
        return self.write(message, self.definition, self.name(stage, ".prototxt"))

    def write(self, message: pb.NetParameter, origin: Definition, path: str) -> Definition:
        """Writes a definition, with the file names of the definition that it was made from adapted to its folder."""
        message = copy.deepcopy(message)
        relocate(message, origin.path or os.curdir, path)
        prototxt.save(message, path)
        return prototxt.read_net(path)

    @property
    def rate(self) -> float | None:
        """The learning rate that trials have found; None before, or without them."""
        found = self.results.get("rate")
        return None if found is None else float(found["base_lr"])

    def stage_solver(self, stage: str, net: pb.NetParameter, iterations: int | None = None) -> pb.SolverParameter:
        """The solver's message for a stage, without the net.  iterations: None: those of the stage"""
        param = pb.SolverParameter()
        param.CopyFrom(self.solver.message)
        quiet(param)
        for name in ("net", "net_param"):
            param.ClearField(name)
        iterations = self.iterations(stage) if iterations is None else iterations
        if self.method == "prune" and stage in GENTLE:
            if not self.task.overrides_policy:
                for name in ("stepsize", "stepvalue", "gamma", "power"):
                    param.ClearField(name)
                param.lr_policy = "cosine"
                if not (param.HasField("warmup_iter") or param.HasField("rampup_interval")):
                    param.warmup_iter = iterations // WARM_UP
            param.base_lr = param.base_lr if self.rate is None else self.rate
        fit_schedule(param, iterations)
        if stage == "sparsify":
            set_strengths(param, net, by_size=not self.own_groups)
        else:
            for name in STRENGTHS:  # strengths explicitly set to 0 are kept
                setattr(param, name, 0.0)
            param.ClearField("group_lasso_scale_by_size")
            param.ClearField("group_lasso_settle")
        param.random_seed, param.snapshot_format = self.seed, pb.SolverParameter.BINARYPROTO
        param.snapshot = param.snapshot or max(1, param.max_iter // SNAPSHOTS)
        param.display = param.display or max(1, param.max_iter // 20)
        return param

    def train(
        self,
        stage: str,
        weights: list[str],
        steering: StrengthController | None = None,
        *,
        path: str | None = None,
        prefix: str | None = None,
    ) -> None:
        """Trains the net that the stage wrote, or resumes at the last snapshot, and writes its weights.

        path, prefix  of the net, and of the files to write; None: those of the stage
        """
        path = path or self.name(stage, ".prototxt")
        param = self.stage_solver(stage, prototxt.read_net(path).message)
        param.net = path
        train_stage(
            param,
            prefix or self.name(stage, ""),
            weights,
            monitor=self.monitor,
            watch=self.watch,
            tell=self.tell,
            steering=steering,
        )

    def compacted(self, definition: Definition, weights: str) -> Compaction:
        return compact(definition, weights, level=self.trial.level, stages=self.trial.stages, seed=self.seed)


def trainable(definition: Definition) -> Definition:
    """The definition without forms chosen by timing, which may round differently in another run.  [changes it]"""
    for layer in definition.message.layer:
        if layer.convolution_param.conv_mode == pb.ConvolutionParameter.AUTO:
            layer.convolution_param.ClearField("conv_mode")
    return definition
