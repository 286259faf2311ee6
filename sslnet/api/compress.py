"""``sslnet.compress_net``: the whole procedure from a net to a small net, with all files in one folder.

It is not called ``sslnet.compress``, because that is the name of the package with the procedure.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.api.inputs import Word, as_argument, check_part
from sslnet.compress.control.targets import Targets
from sslnet.compress.pipeline.controls import CONTROLS
from sslnet.compress.pipeline.method import STAGES
from sslnet.compress.pipeline.pipeline import Pipeline
from sslnet.compress.pipeline.task import Task
from sslnet.compress.pipeline.training import Watch
from sslnet.errors import UsageError, suggestion
from sslnet.files import atomic_write
from sslnet.net.net import Net
from sslnet.report import Table, dump_json
from sslnet.report.procedure import procedure_table, training_table
from sslnet.solver.callbacks import Monitor

Part = float | Mapping[str, float]
"""Fraction of a net that may remain, 0 to 1; or the fraction of each of these layers."""


@dataclass(frozen=True)
class CompressResult:
    """The small net, as files in a folder, and a comparison with the baseline.

    folder    folder with all files of the procedure, listed in docs/cli.md
    model     path of the small net's definition for training and testing
    deploy    path of its definition for deployment; None if ``model`` is one already
    weights   path of its weights
    report    contents of report.json: test error and loss, parameters, FLOPs and times of both nets (docs/cli.md)
    table     the same as a table to print
    training  table to print: each net that was tested, with its error and the iterations behind it
    """

    folder: str
    model: str
    deploy: str | None
    weights: str
    report: dict[str, Any]
    table: Table
    training: Table

    @property
    def met(self) -> bool:
        """Whether the target was met."""
        return bool(self.report["target"]["met"])

    @property
    def missed(self) -> str:
        """Which targets were not met, and what to try; "" if all are met."""
        return str(self.report["target"]["missed"])

    def net(self, phase: int = pb.TEST, **options: Any) -> Net:
        """The small net, ready to run. options: as for ``sslnet.Net``"""
        return Net(self.deploy or self.model, self.weights, phase, **options)


def compress_net(
    model: str | Path | None = None,
    weights: str | Path | None = None,
    *,
    solver: str | Path | None = None,
    target_flops: Part | None = None,
    target_params: Part | None = None,
    target_speedup: float | None = None,
    speedup_batch: int | None = None,
    cut: bool = False,
    output: str | Path | None = None,
    iterations: int | None = None,
    finetune: int | None = None,
    teach: bool | None = None,
    method: str | None = None,
    rounds: int | None = None,
    by: str | None = None,
    repair: str | None = None,
    share_out: str | None = None,
    images: int | None = None,
    controls: bool = False,
    baseline_iterations: int | None = None,
    base_lr: float | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    monitor: Monitor | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> CompressResult:
    """Trains a net, makes it sparse, removes zeros, fine-tunes, tests and times it: all files in one folder.

        result = sslnet.compress_net("models/digits/train_test.prototxt", target_flops=0.3, output="digits_small")
        print(result.report["small"]["error"], result.table.text())

    If the folder was begun by the same call, the procedure continues there, with bit-identical results.

    model                path of the net with the data of both phases; or ``solver`` names it
    weights              path of its trained weights; None: it is trained first
    solver               path of the solver to train with; None: SGD with momentum for 10 epochs
    target_flops         fraction of the net's FLOPs that may remain, 0 to 1, or a fraction for layers: {"conv1": 0.5}; or
    target_params        the same for its parameters; or
    target_speedup       factor by which the forward pass of the small net is to be faster, above 1, measured on this machine
    speedup_batch        number of images in the batch for the measurement of the speedup; None: that of the test net
    cut                  remove the smallest groups if the penalty has not met the target after 60 % of the iterations
    output               the folder; None: NAME_compress in the working folder
    iterations, finetune, baseline_iterations   of each training; None: by the solver, else 10, 5 and 20 epochs. With
                         ``weights`` and ``controls``, baseline_iterations says how long the weights were trained
    teach                fine-tune the small net towards the baseline's scores; None: with the method "prune", where it can
    method               "lasso": train with group lasso; "prune": remove the least important channels in rounds, repair and
                         train; "one-shot": remove and repair, without labels or training; None: chosen by what is given,
                         report["method"] says which and why
    rounds, by, repair, share_out, images   of the methods "prune" and "one-shot": number of rounds, None: 3, or 1;
                         criterion, repair, division between the layers and number of images, as for ``sslnet prune``;
                         None: "reconstruction", "least-squares", "sensitivity", 256
    controls             also train the baseline on, and the small structure from scratch, for as long; ``training`` of the
                         result and report.json then show them. They may be asked for later, in a finished folder
    base_lr              initial learning rate, without ``solver``; None: 0.01. The method "prune" tries this rate or the
                         solver's and smaller ones, unless base_lr or overrides set it
    overrides            fields of the solver, as "momentum=0.8"
    seed                 seed of all random numbers; None: the solver's, else 1
    monitor, tell        callbacks for the progress of each solver, and for a line at the start of each stage

    returns  the small net and its report; ``met`` says whether the target was met. A target that was not met raises nothing
    raises  UsageError for numbers out of range, arguments that exclude each other, a net that cannot be tested or made
            sparse, and the folder of another call; RunError if a training fails
    """
    targets = read_targets(target_flops, target_params, target_speedup, speedup_batch, cut)
    named = model if model is not None else solver
    if named is None:
        raise UsageError("say which net: model or solver")
    task = Task(
        targets,
        default_folder(named) if output is None else os.fspath(output),
        model=_path(model),
        solver=_path(solver),
        weights=_path(weights),
        overrides=tuple(overrides),
        iterations=iterations,
        finetune=finetune,
        baseline_iterations=baseline_iterations,
        base_lr=base_lr,
        seed=seed,
        teach=teach,
        method=method,
        rounds=rounds,
        by=by,
        repair=repair,
        share_out=share_out,
        images=images,
        controls=controls,
    )
    check_task(task)
    return run_task(task, monitor, tell=tell)


def run_task(
    task: Task,
    monitor: Monitor | None = None,
    watch: Watch = lambda solver: contextlib.nullcontext(),
    tell: Callable[[str], None] = lambda line: None,
) -> CompressResult:
    """Runs the stages of a task that are not complete yet, and writes report.json and report.txt.

    monitor, watch, tell  as for ``Pipeline``
    raises Stopped if a solver was stopped
    """
    procedure = Pipeline(task, monitor, watch, tell)
    results = procedure.run()
    report, table = report_of(procedure, results), procedure_table(results)
    training = training_table(report)
    if report["target"]["missed"]:
        training.note(report["target"]["missed"])
    atomic_write(os.path.join(task.folder, "report.json"), dump_json(report).encode())
    atomic_write(os.path.join(task.folder, "report.txt"), f"{table.text()}\n{training.text()}".encode())
    small = report["small"]
    return CompressResult(task.folder, small["model"], small["deploy"], small["weights"], report, table, training)


def read_targets(
    flops: Part | None, params: Part | None, speedup: float | None, batch: int | None, cut: bool
) -> Targets:
    """Reads the target from the arguments. raises UsageError unless exactly one is given, in its range"""
    given = {
        of: value for of, value in (("flops", flops), ("params", params), ("speedup", speedup)) if value is not None
    }
    if len(given) != 1:
        raise UsageError("say how small: one of target_flops, target_params and target_speedup")
    if batch is not None and speedup is None:
        raise UsageError("speedup_batch is for target_speedup")
    if batch is not None and batch < 1:
        raise UsageError(f"speedup_batch must be at least 1, not {batch}")
    ((of, value),) = given.items()
    if isinstance(value, Mapping):
        for part in value.values():
            check_part(part, f"target_{of}")
        return Targets(of, None, dict(value), cut=cut)
    if of != "speedup":
        check_part(value, f"target_{of}")
    elif not 1 < value < float("inf"):
        raise UsageError(f"target_speedup must be above 1, not {value:g}")
    return Targets(of, value, batch=batch, cut=cut)


def check_task(task: Task, word: Word = as_argument) -> None:
    """Checks the other arguments. raises UsageError for numbers out of range, or that exclude each other"""
    if task.solver and task.base_lr is not None:
        hint = f"use {word('overrides')} base_lr={task.base_lr:g}"
        raise UsageError(f"{word('base_lr')} is for runs without {word('solver')}", hint=hint)
    if task.weights and task.baseline_iterations is not None and not task.controls:
        raise UsageError(
            f"{word('baseline_iterations')} is for runs without {word('weights')}: given weights are the baseline",
            hint=f"with {word('controls')} it says how long they were trained",
        )
    if task.teach and task.finetune == 0:
        raise UsageError(f"{word('teach')} needs the fine-tuning stage, which {word('finetune')} 0 skips")
    if task.method is not None and task.method not in STAGES:
        hint = suggestion(task.method, STAGES) or f"one of {', '.join(STAGES)}"
        raise UsageError(f'{word("method")}: unknown method "{task.method}"', hint=hint)
    least_iterations = 1 if task.method in (None, "lasso") else 0
    numbers = {"rounds": 1, "images": 1, "iterations": least_iterations}
    numbers |= {"baseline_iterations": 1, "finetune": 0, "seed": 0}
    for name, least in numbers.items():
        value = getattr(task, name)
        if value is not None and value < least:
            raise UsageError(f"{word(name)} must be {least} or more, not {value}")


def _path(path: str | Path | None) -> str | None:
    return None if path is None else os.fspath(path)


def default_folder(path: str | Path) -> str:
    """The default folder, NAME_compress in the working directory; NAME of a train_test.prototxt is the name of its
    folder."""
    place = Path(os.path.abspath(path))
    return f"{place.parent.name if place.stem in ('train_test', 'train_val') else place.stem}_compress"


def report_of(procedure: Pipeline, results: dict[str, Any]) -> dict[str, Any]:
    """The contents of report.json. results: results of all stages, as returned by ``Pipeline.run``"""
    task, time = procedure.task, results["time"]
    deploy = procedure.name("compact", "_deploy.prototxt") if results["compact"]["deploy"] else None
    files: dict[str, dict[str, Any]] = {
        "baseline": {"model": procedure.name("baseline", ".prototxt"), "weights": procedure.weights("baseline")},
        "small": {
            "model": procedure.name("compact", ".prototxt"),
            "deploy": deploy,
            "weights": procedure.weights("finetune"),
        },
    }
    outcome: dict[str, Any] = {}
    for side, (name, score) in enumerate((("baseline", "baseline"), ("small", "test"))):
        outcome[name] = {
            **files[name],
            "error": results[score]["error"],
            "loss": results[score]["loss"],
            "parameters": results["compact"]["parameters"][side],
            "flops": results["compact"]["flops"][side],
            "weights_bytes": time["bytes"][side],
            "forward_ms": 1e3 * time["forward"][side],
            "backward_ms": None if time["backward"][side] is None else 1e3 * time["backward"][side],
        }
    sparse, targets = results[procedure.shrinks], task.targets
    lengths = {"baseline": procedure.baseline_iterations}
    outcome["baseline"]["iterations"] = dict(lengths)
    lengths[procedure.shrinks] = procedure.iterations_before_finetuning
    before = {"error": sparse["error"], "loss": sparse["loss"], "iterations": dict(lengths)}
    worse = results.get("finetune", {}).get("worse")
    lengths["finetune"] = 0 if worse else procedure.iterations("finetune")
    outcome["small"]["iterations"] = lengths
    if "difference" in results["test"]:
        outcome["small"]["difference"] = results["test"]["difference"]
    method: dict[str, Any] = {"name": procedure.method, "reason": procedure.reason}
    if procedure.shrinks == "prune":
        method |= {name: sparse[name] for name in ("by", "repair", "share_out", "images", "rounds")}
    if "rate" in results:
        method["base_lr"] = results["rate"]["base_lr"]
    return {
        "method": method,
        "target": {
            "of": targets.of,
            "value": targets.whole,
            "layers": dict(targets.layers),
            "met": sparse["met"],
            "left": sparse["left"],
            "missed": missed_text(procedure, sparse["missed"]),
        },
        **({"before_finetuning": before} if procedure.method != "one-shot" else {}),
        **({"worse_after_finetuning": worse} if worse else {}),
        **outcome,
        **(control_figures(procedure, results) if task.controls else {}),
        "speedup": time["race"],
        "batch": time["batch"],
        "threads": time["threads"],
        "notes": results["compact"]["notes"],
    }


def missed_text(procedure: Pipeline, missed: str) -> str:
    """Which targets were not met, and what to try; "" if ``missed`` is empty."""
    if not missed:
        return ""
    advice = procedure.task.targets.advice if procedure.method == "lasso" else "try a milder target"
    return f"the target was not met: {missed}; {advice}"


def control_figures(procedure: Pipeline, results: dict[str, Any]) -> dict[str, Any]:
    """Error, loss and iterations of the two controls."""
    figures = {}
    for stage in CONTROLS:
        behind = {"baseline": procedure.baseline_iterations} if stage == "dense_control" else {}
        figures[stage] = {
            "error": results[stage]["error"],
            "loss": results[stage]["loss"],
            "iterations": behind | {stage: results[stage]["iterations"]},
        }
    return figures
