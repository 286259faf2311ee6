"""The whole procedure as stages in one folder: train, make sparse, take out, fine-tune, test, time.

    baseline   trains the net without penalties, or takes trained weights; tests it
    sparsify   group lasso, steered to what is to be left (``sslnet.compress.control.controller``)
    compact    the net without what became zero
    finetune   trains the small net, on request beside the baseline, which teaches it (``sslnet.compress.distillation.teacher``)
    test       scores it
    time       times both nets in turns

``state.json`` says which stages are done, with which options, and what they gave. Inside a stage that trains, the last
snapshot is where an interrupted run goes on, bit for bit.

Ref: Wen et al. 2016, section 3 and 4: learn the structure from a trained net, then fine-tune what is left
"""

from __future__ import annotations

import contextlib
import copy
import glob
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.compaction.rebase import relocate
from sslnet.compress.compaction.sizes import total_size
from sslnet.compress.control.controller import StrengthController
from sslnet.compress.control.latency_model import Race, Track
from sslnet.compress.control.targets import Targets
from sslnet.compress.distillation.teacher import PREFIX, teach
from sslnet.compress.evaluation import epoch_batches, find_trial
from sslnet.compress.pipeline.default_groups import add_groups, declared, set_strengths
from sslnet.compress.pipeline.fingerprint import file_mark
from sslnet.compress.pipeline.merge_phases import merge_nets, names_apart
from sslnet.compress.pipeline.regularization_path import Stopped, Watch
from sslnet.compress.pipeline.schedule import STRENGTHS, check_started, check_turnable, fit_schedule, quiet
from sslnet.errors import UsageError, WeightsError
from sslnet.files import TEMPORARY, atomic_write, remove_remains, resolve, sole_user
from sslnet.json_file import fields, items, number, read_json, whole
from sslnet.net.net import Net
from sslnet.net.weights import read_weights, save_arrays
from sslnet.prototxt import Definition
from sslnet.solver.callbacks import Monitor
from sslnet.solver.solver import Solver
from sslnet.solver.solver_definition import check_aims, find_nets, named_weights, net_state
from sslnet.timing.layerwise import open_net, time_nets

STAGES = ("baseline", "sparsify", "compact", "finetune", "test", "time")
FILES = {"baseline": "1_baseline", "sparsify": "2_sparsify", "compact": "3_compact", "finetune": "4_finetune"}
"""What the names of each stage's files start with."""
STATE, LOCK = "state.json", "in_use.lock"
EPOCHS = {"baseline": 20, "sparsify": 10, "finetune": 5}
"""Of a stage that trains, where no solver says how long."""
EPOCH = 200
"""Iterations taken for an epoch at least, also where data do not tell how many records there are: to find a strength
takes iterations, however few the data are; within a few hundred it would be so strong that it harms what stays."""
SNAPSHOTS = 10
"""In a stage, where the solver does not say how often."""
RUNS = 30
"""Of the timing."""
SOLVER = """# Made by sslnet compress: momentum, a rate that drops twice.
net: {net}
base_lr: {base_lr:g}
lr_policy: "multistep"
gamma: 0.1
stepvalue: {first}
stepvalue: {second}
momentum: 0.9
weight_decay: 0.0005
average_loss: 20
max_iter: {max_iter}
"""


@dataclass(frozen=True)
class Task:
    """What is asked for.

    model, solver        paths; one of them is needed. A model takes the place of the net that the solver names
    weights              of the trained net; None: it is trained first
    iterations, finetune, baseline_iterations   None: as the solver says (half of it to fine-tune), else in epochs
    base_lr              of the solver made where none is given
    teach                whether the baseline teaches the small net
    """

    targets: Targets
    folder: str
    model: str | None = None
    solver: str | None = None
    weights: str | None = None
    overrides: tuple[str, ...] = ()
    iterations: int | None = None
    finetune: int | None = None
    baseline_iterations: int | None = None
    base_lr: float | None = None
    seed: int | None = None
    teach: bool = False

    def options(self) -> dict[str, str]:
        """What must be the same for a folder to be gone on with; of files a mark of their content."""
        files = {"--model": self.model, "--solver": self.solver, "--weights": self.weights}
        marked = {name: path and f"{os.path.basename(path)} ({file_mark(path)})" for name, path in files.items()}
        others = {
            f"--target-{self.targets.of}": self.targets.text,
            "--speedup-batch": self.targets.batch,
            "--set": " ".join(self.overrides) or None,
            "--iterations": self.iterations,
            "--finetune": self.finetune,
            "--baseline-iterations": self.baseline_iterations,
            "--base-lr": self.base_lr,
            "--seed": self.seed,
            "--cut": "given" if self.targets.cut else None,
            "--teach": "given" if self.teach else None,
        }
        return {name: str(value) for name, value in (marked | others).items() if value is not None}


# -- what the state file says of the stages that are done --------------------------------------------------------------


def _is_score(value: Any) -> bool:
    """As ``Score``: an error, a loss, at least one of them; a loss need not be finite."""
    known = fields(value)
    error, loss = number(known.get("error")), known.get("loss")
    if loss is None:
        return error is not None
    return isinstance(loss, int | float) and (error is not None or known.get("error") is None)


def _is_pair(value: Any, kind: Callable[[Any], object]) -> bool:
    """Of the baseline and the small net."""
    return len(items(value)) == 2 and all(kind(item) is not None for item in value)


def _is_sparsified(value: Any) -> bool:
    known = fields(value)
    words = isinstance(known.get("missed"), str) and isinstance(known.get("met"), bool)
    return words and "left" in known and _is_score(known)


def _is_compacted(value: Any) -> bool:
    known = fields(value)
    notes = known.get("notes")
    words = isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    sizes = _is_pair(known.get("parameters"), whole) and _is_pair(known.get("flops"), number)
    return words and sizes and isinstance(known.get("deploy"), bool)


def _is_timed(value: Any) -> bool:
    known = fields(value)
    back, race = known.get("backward"), known.get("race")
    times = _is_pair(known.get("forward"), number) and (back == [None, None] or _is_pair(back, number))
    whole_numbers = all(whole(known.get(name)) is not None for name in ("batch", "threads"))
    raced = race is None or all(number(fields(race).get(name)) is not None for name in ("batch", "whole", "small"))
    return times and whole_numbers and raced and _is_pair(known.get("bytes"), whole)


KNOWN: dict[str, Callable[[Any], bool]] = {
    "baseline": _is_score,
    "sparsify": _is_sparsified,
    "compact": _is_compacted,
    "finetune": lambda value: whole(fields(value).get("iterations")) is not None,
    "test": _is_score,
    "time": _is_timed,
}
"""{stage: whether this is what it gives}."""


class Procedure:
    """Runs the stages of a task that are not done yet.

    monitor  is told what each solver does
    watch    gives the context in which a solver runs: signals that stop it
    tell     called with a line when a stage begins
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
        self.solver = self._solver_definition()
        said = self.solver.message.random_seed
        self.seed = task.seed if task.seed is not None else said if said >= 0 else 1
        self.definition = prototxt.upgrade_net(find_nets(self.solver)[0])
        param = self.solver.message
        self.state = net_state(self.definition, pb.TRAIN, param.train_state)
        self.trial = find_trial(self.solver, self.seed)
        self.trial.check()
        self.results = self._open()
        """{stage: what it gave} of those that are done."""

    # -- what there is to run ----------------------------------------------------------------------------------------

    def _solver_definition(self) -> Definition:
        task = self.task
        if task.solver is not None:
            solver = prototxt.apply_overrides(prototxt.read_solver(task.solver), task.overrides)
            if task.model is not None:
                for name in ("net_param", "train_net", "train_net_param", "test_net", "test_net_param"):
                    solver.message.ClearField(name)
                solver.message.net = task.model
            return merge_nets(solver) if names_apart(solver) else solver
        assert task.model is not None
        train = Net(prototxt.read_net(task.model), phase=pb.TRAIN, lean=True)
        iterations = EPOCHS["sparsify"] * max(EPOCH, epoch_batches(train) or 0)
        text = SOLVER.format(
            net=json.dumps(task.model),
            base_lr=0.01 if task.base_lr is None else task.base_lr,
            max_iter=iterations,
            first=iterations * 7 // 10,
            second=iterations * 9 // 10,
        )
        made = prototxt.parse(text, pb.SolverParameter, os.path.join(task.folder, "solver.prototxt"))
        return prototxt.apply_overrides(made, task.overrides)

    def iterations(self, stage: str) -> int:
        """Of a stage that trains."""
        task, most = self.task, self.solver.message.max_iter
        given = {
            "baseline": task.baseline_iterations,
            "sparsify": task.iterations,
            "finetune": task.finetune,
        }[stage]
        if given is not None:
            return given
        if task.solver is not None:
            return -(-most // 2) if stage == "finetune" else most
        return most * EPOCHS[stage] // EPOCHS["sparsify"]

    # -- the folder --------------------------------------------------------------------------------------------------

    def name(self, stage: str, suffix: str) -> str:
        return os.path.join(self.task.folder, FILES[stage] + suffix)

    def weights(self, stage: str) -> str:
        """The file of the weights that a stage ends with."""
        if stage == "baseline" and self.task.weights is not None:
            return self.task.weights
        if stage == "finetune" and not self.iterations("finetune"):
            stage = "compact"
        return self.name(stage, ".caffemodel")

    def _open(self) -> dict[str, Any]:
        """What the state file says is done. raises UsageError for the folder of another task"""
        folder, path, options = self.task.folder, os.path.join(self.task.folder, STATE), self.task.options()
        if not os.path.exists(path):
            found = os.listdir(folder) if os.path.isdir(folder) else []
            if any(name != LOCK and not TEMPORARY.fullmatch(name) for name in found):
                raise UsageError(
                    f"{folder} is not empty, and does not hold a run of sslnet compress", hint="choose another --output"
                )
            return {}
        state = fields(read_json(path, hint="choose another --output"))
        before, results = fields(state.get("options")), fields(state.get("stages"))
        if not before or not all(stage in KNOWN and KNOWN[stage](result) for stage, result in results.items()):
            raise UsageError("is damaged, or no state of sslnet compress", path=path, hint="choose another --output")
        changed = [name for name in {**before, **options} if before.get(name) != options.get(name)]
        if changed:
            words = [
                f"{name} was {before.get(name, 'not given')} and is {options.get(name, 'not given')}"
                for name in changed
            ]
            raise UsageError(
                f"{folder} was started with other options: {'; '.join(words)}",
                hint="use the same options to continue it, or another --output",
            )
        return results

    def _save(self) -> None:
        state = {"version": 1, "options": self.task.options(), "stages": self.results}
        atomic_write(os.path.join(self.task.folder, STATE), json.dumps(state, indent=2).encode())

    # -- the stages --------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """The results of all stages, by name. raises Stopped when a solver was asked to stop"""
        if "sparsify" not in self.results:
            self._check_sparsity()
        folder = self.task.folder
        os.makedirs(folder, exist_ok=True)
        with sole_user(os.path.join(folder, LOCK), folder):
            remove_remains(folder, STATE, "report", *FILES.values())
            self._save()
            return self._run_stages()

    def _run_stages(self) -> dict[str, Any]:
        for place, stage in enumerate(STAGES, 1):
            if stage not in self.results:
                self.tell(f"stage {place} of {len(STAGES)}: {stage}")
                self.results[stage] = getattr(self, f"_{stage}")()
                self._save()
            if stage in FILES:
                self._tidy(stage)
        return self.results

    def _tidy(self, stage: str) -> None:
        """Removes what a stage that is done needed on the way, also what an interrupted run left of it."""
        start = glob.escape(self.name(stage, "_iter_"))
        for path in (*glob.glob(f"{start}*.solverstate"), *glob.glob(f"{start}*.caffemodel")):
            _remove(path)

    def _baseline(self) -> dict[str, Any]:
        self._write_net("baseline", self.definition.message)
        if self.task.weights is None:
            named = [str(resolve(w, self.solver.path, error=WeightsError)) for w in named_weights(self.solver)]
            self._train("baseline", "baseline", named)
        return asdict(self.trial.score(self.weights("baseline")))

    def _sparsify(self) -> dict[str, Any]:
        added = self._write_net("sparsify", self._sparse_definition().message)
        steering = StrengthController(self.task.targets, self.tell)
        self._train("sparsify", "sparsify", [self.weights("baseline")], steering)
        score = self.trial.score(self.weights("sparsify"), added)
        return {"met": steering.met, "left": steering.left, "missed": steering.missed(), **asdict(score)}

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
        for layer in message.layer:  # what is tried out by time may round differently in another run
            if layer.convolution_param.conv_mode == pb.ConvolutionParameter.AUTO:
                layer.convolution_param.ClearField("conv_mode")
        weights = self.weights("compact")
        if self.task.teach and self.iterations("finetune"):
            message, weights = self._taught(message, weights)
        prototxt.save(message, self.name("finetune", ".prototxt"))
        if self.iterations("finetune"):
            self._train("finetune", "finetune", [weights])
        if weights != self.weights("compact"):
            alone = {k: v for k, v in read_weights(self.weights("finetune")).items() if not k.startswith(PREFIX)}
            save_arrays(alone, self.weights("finetune"), hdf5=False)
            _remove(weights)
        return {"iterations": self.iterations("finetune")}

    def _taught(self, message: Any, weights: str) -> tuple[Any, str]:
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
            "race": asdict(self._race()) if self.task.targets.of == "speedup" else None,
        }

    def _race(self) -> Race:
        """The small net against the baseline, as they are deployed."""
        track = Track(self.trial, self.task.targets.batch)
        suffix = "_deploy.prototxt" if self.results["compact"]["deploy"] else ".prototxt"
        return track.race(prototxt.read_net(self.name("compact", suffix)).message, self.weights("finetune"))

    # -- definitions -------------------------------------------------------------------------------------------------

    def _sparse_definition(self) -> Definition:
        """A copy of the net with groups to be made zero; its own where it declares some."""
        message = copy.deepcopy(self.definition.message)
        if not declared(message) and not add_groups(self.definition.with_message(message), self.state):
            raise UsageError(
                f"{self.definition.path}: only the last layer has weights, so there is nothing to remove",
                hint="sslnet compress removes filters and neurons of Convolution and InnerProduct layers before it",
            )
        return self.definition.with_message(message)

    def _write_net(self, stage: str, message: Any, suffix: str = ".prototxt") -> Definition:
        """Writes a definition; the files that it names stay findable."""
        message, path = copy.deepcopy(message), self.name(stage, suffix)
        relocate(message, self.definition.path or os.curdir, path)
        prototxt.save(message, path)
        return prototxt.read_net(path)

    def _stage_solver(self, stage: str, net: Any) -> Any:
        """The solver's message for a stage, without the net."""
        param = copy.deepcopy(self.solver.message)
        quiet(param)
        for name in ("net", "net_param"):
            param.ClearField(name)
        fit_schedule(param, self.iterations(stage))
        if stage == "sparsify":
            set_strengths(param, net)
        else:
            for name in STRENGTHS:  # zeros that are written are meant
                setattr(param, name, 0.0)
            param.ClearField("group_lasso_scale_by_size")
            param.ClearField("group_lasso_settle")
        param.random_seed, param.snapshot_format = self.seed, pb.SolverParameter.BINARYPROTO
        param.snapshot = param.snapshot or max(1, param.max_iter // SNAPSHOTS)
        param.display = param.display or max(1, param.max_iter // 20)
        return param

    def _check_sparsity(self) -> None:
        """Before anything is trained: that there is something to be made zero."""
        definition = self._sparse_definition()
        param = self._stage_solver("sparsify", definition.message)
        net = Net(definition, phase=pb.TRAIN, level=self.state["level"], stages=self.state["stages"], lean=True)
        check_aims(self.solver, net)
        param.net_param.CopyFrom(definition.message)
        solver = Solver(self.solver.with_message(param), net=net)
        check_turnable(solver)
        if "baseline" not in self.results:
            StrengthController(self.task.targets).start(solver)

    # -- training ----------------------------------------------------------------------------------------------------

    def _train(self, stage: str, net: str, weights: list[str], steering: StrengthController | None = None) -> None:
        """Trains the net that stage ``net`` wrote, or goes on from the last snapshot, and writes its weights."""
        path = self.name(net, ".prototxt")
        param = self._stage_solver(stage, prototxt.read_net(path).message)
        param.net, param.snapshot_prefix = path, self.name(stage, "")
        written = self.name(stage, "_solver.prototxt")
        prototxt.save(param, written)
        last = max(self._snapshots(stage), key=_iteration, default=None)
        if last is not None:
            self.tell(f"continuing from {last}")
        solver = Solver(
            written,
            weights=[] if last else weights,
            snapshot=last,
            monitor=OneSnapshot(self.monitor, last),
            lean=True,
            steering=steering,
        )
        if last is None:
            check_started(solver, weights)
        with self.watch(solver):
            solver.solve()
        if solver.iter < param.max_iter:
            raise Stopped
        solver.net.save(self.name(stage, ".caffemodel"))

    def _snapshots(self, stage: str) -> list[str]:
        """The states that a stage has left."""
        return glob.glob(glob.escape(self.name(stage, "_iter_")) + "*.solverstate")


class OneSnapshot(Monitor):
    """Passes on what a solver tells, and removes each snapshot when the next one is there."""

    PASSED_ON = ("on_warning", "on_start", "on_iteration", "on_display", "on_test", "on_debug", "on_finish")

    def __init__(self, monitor: Monitor, last: str | None) -> None:
        self.monitor, self.last = monitor, last
        for name in self.PASSED_ON:
            setattr(self, name, getattr(monitor, name))

    def on_snapshot(self, iteration: int, weights: str, state: str) -> None:
        if self.last is not None and self.last != state:
            _remove_snapshot(self.last)
        self.last = state
        self.monitor.on_snapshot(iteration, weights, state)


def _iteration(path: str) -> int:
    found = re.search(r"_iter_(\d+)\.solverstate$", path)
    return int(found[1]) if found else -1


def _remove_snapshot(state: str) -> None:
    _remove(state)
    _remove(state.replace(".solverstate", ".caffemodel"))


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
