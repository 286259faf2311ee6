"""The pipeline: train, make small, compact, fine-tune, test and time, as stages with their files in one folder.

    baseline   trains the net without penalties, or takes trained weights; tests it
    sparsify   trains with group lasso; the controller adjusts its strengths (``sslnet.compress.control.controller``); or
    prune      removes channels in rounds, repairs the net and trains it (``pruning_rounds``)
    compact    removes the channels that became zero
    finetune   trains the small net, on request with the baseline as teacher (``sslnet.compress.distillation.teacher``)
    test       tests the small net
    controls   on request: trains the baseline on, and the small structure from scratch, for as long (``controls``)
    time       times both nets alternately

``state.json`` records the completed stages, their options and results (``state_file``). In a stage that trains, an
interrupted run resumes bit-identically at the last snapshot (``training``).

Ref: Wen et al. 2016, section 3 and 4: learn the structure from a trained net, then fine-tune the remaining weights
"""

from __future__ import annotations

import copy
import os
from dataclasses import asdict
from typing import Any

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.sizes import layer_sizes, total_size
from sslnet.compress.control.latency_model import LatencyBenchmark, LatencyComparison
from sslnet.compress.pipeline.controls import CONTROLS, with_fillers
from sslnet.compress.pipeline.default_groups import add_groups, weigh
from sslnet.compress.pipeline.fine_tuning import FineTuning
from sslnet.compress.pipeline.method import STAGES
from sslnet.compress.pipeline.pipeline_base import FILES, trainable
from sslnet.compress.pipeline.pruning_rounds import PruneSettings, is_trained, prune_net, prune_once, total_flops
from sslnet.compress.pipeline.schedule import check_turnable
from sslnet.compress.pipeline.state_file import LOCK, STATE
from sslnet.compress.pipeline.training import remove, remove_snapshots
from sslnet.compress.pruning.prune_channels import check_choices
from sslnet.errors import UsageError, WeightsError
from sslnet.files import atomic_write, make_folder, remove_remains, resolve, sole_user
from sslnet.net.net import Net
from sslnet.net.weights import save_arrays
from sslnet.prototxt import Definition
from sslnet.solver.solver import Solver
from sslnet.solver.solver_definition import check_aims, named_weights
from sslnet.timing.layerwise import open_net, time_nets

RUNS = 30
"""Number of timed runs."""


class Pipeline(FineTuning):
    """Runs the stages of a task that are not done yet.

    monitor  receives the events of each solver
    watch    makes the context in which a solver runs, for example one that stops it on signals
    tell     called with a line of text when a stage begins
    raises   UsageError for a folder that belongs to another task, or a net that cannot be tested or made sparse
    """

    @property
    def stages(self) -> list[str]:
        """Names of the stages of this task, in order."""
        return [stage for stage in STAGES[self.method] if self.task.controls or stage not in CONTROLS]

    # -- the stages --------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """The results of all stages, by name. raises Stopped when a solver was asked to stop"""
        if self.shrinks not in self.results:
            self._check_sparsity() if self.method == "lasso" else self._check_prunable()
        if any(stage not in self.results for stage in self.stages):
            self.tell(f"method: {self.method}: {self.reason}")
        folder, lock = self.task.folder, os.path.join(self.task.folder, LOCK)
        make_folder(lock)
        with sole_user(lock, folder):
            remove_remains(folder, STATE, "report", *FILES.values())
            self.save()
            return self._run_stages()

    def _run_stages(self) -> dict[str, Any]:
        for place, stage in enumerate(self.stages, 1):
            if stage not in self.results:
                self.tell(f"stage {place} of {len(self.stages)}: {stage}")
                self.results[stage] = getattr(self, f"_{stage}")()
                self.save()
            if stage in FILES:
                remove_snapshots(self.name(stage, ""))
        return self.results

    def _baseline(self) -> dict[str, Any]:
        self.write_net("baseline", self.definition.message)
        if self.task.weights is None:
            named = [str(resolve(w, self.solver.path, error=WeightsError)) for w in named_weights(self.solver)]
            self.train("baseline", named)
        return asdict(self.trial.score(self.weights("baseline")))

    def _sparsify(self) -> dict[str, Any]:
        added = self.write_net("sparsify", self._sparse_definition(self.weights("baseline")).message)
        steering = self.controller(self.tell)
        self.train("sparsify", [self.weights("baseline")], steering)
        score = self.trial.score(self.weights("sparsify"), added)
        return {"met": steering.met, "left": steering.remaining, "missed": steering.missed(), **asdict(score)}

    def _prune(self) -> dict[str, Any]:
        """Removes channels in rounds, in each the same fraction of what is left, and trains between the rounds."""
        target = self.task.targets.part or 0.0
        definition, weights = self.definition, self.weights("baseline")
        whole = total_flops(self.trial.net(weights))
        for k in range(1, self.rounds):
            prefix, goal = self.name("prune", f"_round{k}"), target ** (k / self.rounds)
            if not is_trained(prefix):
                self.tell(f"round {k} of {self.rounds}: {100 * goal:.3g} % of the FLOPs")
                now = total_flops(self.trial.net(weights, definition)) / whole
                pruned, _ = prune_once(self.trial, definition, weights, goal / now, self.pruning, self.tell)
                path = f"{prefix}_start.caffemodel"
                save_arrays(pruned, path, hdf5=False)
                small = self.compacted(definition, path)
                atomic_write(path, small.weights.SerializeToString())
                net = self.write(small.message, definition, f"{prefix}.prototxt")
                self.train_small("prune", prefix, trainable(net), path)
                remove_snapshots(prefix)
                remove(path)
            definition, weights = prototxt.read_net(f"{prefix}.prototxt"), f"{prefix}.caffemodel"
        if self.rounds > 1:
            self.tell(f"round {self.rounds} of {self.rounds}: {100 * target:.3g} % of the FLOPs")
        now = total_flops(self.trial.net(weights, definition)) / whole
        pruned, result = prune_once(self.trial, definition, weights, target / now, self.pruning, self.tell)
        net = self.write(definition.message, definition, self.name("prune", ".prototxt"))
        save_arrays(pruned, self.weights("prune"), hdf5=False)
        left = now * result.flops
        missed = "" if left <= target + 1e-9 else f"{100 * left:.1f} % of the FLOPs remain, not {100 * target:.3g} %"
        words = {"rounds": self.rounds, "by": result.by, "repair": result.repair, "share_out": result.share_out}
        words["images"] = result.images
        return {
            "met": not missed,
            "left": left,
            "missed": missed,
            **words,
            **asdict(self.trial.score(self.weights("prune"), net)),
        }

    def _compact(self) -> dict[str, Any]:
        definition = self.definition
        if self.shrinks == "prune":
            definition = prototxt.read_net(self.name("prune", ".prototxt"))
        compaction = self.compacted(definition, self.weights(self.shrinks))
        atomic_write(self.weights("compact"), compaction.weights.SerializeToString())
        if compaction.deploy is not None:
            self.write(compaction.deploy, definition, self.name("compact", "_deploy.prototxt"))
        self.write(compaction.message, definition, self.name("compact", ".prototxt"))
        sizes = [total_size([layer.after for layer in compaction.layers])]
        whole = self.trial.net(self.weights("baseline"))
        sizes.insert(0, total_size([layer.before for layer in layer_sizes(whole, whole)]))
        return {
            "deploy": compaction.deploy is not None,
            "notes": compaction.notes,
            "parameters": [size.parameters for size in sizes],
            "flops": [size.flops / compaction.batch for size in sizes],
        }

    def _finetune(self) -> dict[str, Any]:
        return self.train_small("finetune", self.name("finetune", ""), self.small_definition(), self.weights("compact"))

    def _test(self) -> dict[str, Any]:
        small = self.small_definition()
        score = self.trial.score(self.weights("finetune"), small)
        if score.error is not None or score.loss is not None:
            return asdict(score)
        return asdict(score) | {
            "difference": self.trial.difference(self.weights("baseline"), self.weights("finetune"), small)
        }

    def _dense_control(self) -> dict[str, Any]:
        """Trains the baseline on, without penalties, for as long as the stages behind it."""
        return self._control("dense_control", self.definition.message, [self.weights("baseline")])

    def _scratch_control(self) -> dict[str, Any]:
        """Trains the structure of the small net from scratch."""
        return self._control("scratch_control", with_fillers(self.small_definition().message), [])

    def _control(self, stage: str, message: pb.NetParameter, weights: list[str]) -> dict[str, Any]:
        if stage == "dense_control":
            definition = self.write_net(stage, message)
        else:
            prototxt.save(message, self.name(stage, ".prototxt"))
            definition = prototxt.read_net(self.name(stage, ".prototxt"))
        if self.iterations(stage):
            self.train(stage, weights)
            weights = [self.weights(stage)]
        score = self.trial.score(weights[0], definition)
        return {"iterations": self.iterations(stage), **asdict(score)}

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

    def _sparse_definition(self, weights: str | None = None) -> Definition:
        """A copy of the net with groups to penalise: its own, or default groups if it declares none.

        weights  path of the weights to start from, by which the default groups are weighed; None: they are not
        """
        definition = self.definition.with_message(copy.deepcopy(self.definition.message))
        if not self.own_groups:
            return definition
        if not add_groups(definition, self.state):
            raise UsageError(
                f"{self.definition.path}: only the last layer has weights, so there is nothing to remove",
                hint="sslnet compress removes filters and neurons of Convolution and InnerProduct layers before it",
            )
        if weights is not None:
            solver = self._sparse_solver(definition)
            solver.net.copy_from(weights)
            removed = weigh(definition.message, solver, self.task.targets.of, self.task.targets.part)
            if removed:
                kind = "parameters" if self.task.targets.of == "params" else "FLOPs"
                self.tell(f"no groups for {', '.join(removed)}: there are next to no {kind} to save")
        return definition

    def _sparse_solver(self, definition: Definition) -> Solver:
        """A solver of the sparsify stage, to look at its groups."""
        param = self.stage_solver("sparsify", definition.message)
        net = Net(definition, phase=pb.TRAIN, level=self.state["level"], stages=self.state["stages"], lean=True)
        check_aims(self.solver, net)
        param.net_param.CopyFrom(definition.message)
        return Solver(self.solver.with_message(param), net=net)

    def _check_prunable(self) -> None:
        """Raises UsageError for a target that the channels of the net cannot reach; call it before training."""
        trial = self.trial
        net = Net(trial.definition, phase=pb.TEST, level=trial.level, stages=trial.stages, seed=self.seed, lean=True)
        settings = PruneSettings(by="magnitude", repair="none", share_out="uniform")
        check_choices(self.pruning.by, self.pruning.repair, self.pruning.share_out, 0.5)
        prune_net(net, self.task.targets.part or 0.0, settings, self.seed)

    def _check_sparsity(self) -> None:
        """Raises UsageError if there are no groups to penalise; call it before training."""
        solver = self._sparse_solver(self._sparse_definition())
        check_turnable(solver)
        if "baseline" not in self.results:
            self.controller(lambda line: None).start(solver)
