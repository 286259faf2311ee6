"""``sslnet compress``: compresses a net in one command, from training to the report, with all files in one folder."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_deterministic_option
from sslnet.cli.targets import add_target_options, read_targets
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.compress.pipeline.pipeline import Procedure, Task

HELP = "Compresses a net in one command: train, sparsify, compact, fine-tune, test, time."
EXAMPLE = "sslnet compress --model models/digits/train_test.prototxt --target-flops 0.3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="FILE", help="the net, with data layers for both phases (train_test.prototxt)"
    )
    parser.add_argument("--weights", metavar="FILE", help="its trained weights; default: train it first")
    parser.add_argument(
        "--solver", metavar="FILE", help="the solver to train with; default: SGD with momentum, see docs/cli.md"
    )
    add_target_options(parser)
    parser.add_argument("--output", metavar="DIR", help="folder for all files; default: NAME_compress")
    parser.add_argument("--iterations", type=int, metavar="N",
        help="iterations of the sparsify stage; default: the solver's max_iter, else 10 epochs")  # fmt: skip
    parser.add_argument("--finetune", type=int, metavar="N",
        help="fine-tuning iterations of the small net; default: half the solver's max_iter, else 5 epochs")  # fmt: skip
    parser.add_argument("--teach", action="store_true",
        help="fine-tune the small net with the baseline as its teacher, as sslnet teach does")  # fmt: skip
    parser.add_argument("--baseline-iterations", type=int, metavar="N",
        help="iterations to train the baseline, without --weights; default: the solver's max_iter, else 20 epochs")  # fmt: skip
    parser.add_argument(
        "--base-lr", type=float, metavar="X", help="initial learning rate, without --solver; default 0.01"
    )
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help="override a solver field; may be repeated")  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="random seed; default: the solver's, else 1")
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    add_deterministic_option(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import RunLog
    from sslnet.cli.monitors import Monitors
    from sslnet.cli.options import use_threads
    from sslnet.cli.runs import solver_monitor, watching
    from sslnet.compress.pipeline.pipeline import Procedure
    from sslnet.compress.pipeline.regularization_path import Stopped
    from sslnet.files import atomic_write
    from sslnet.report import dump_json, print_table
    from sslnet.report.procedure import procedure_table

    use_threads(args.threads, args.deterministic)
    task = make_task(args)
    log = RunLog()
    with contextlib.closing(solver_monitor(log)) as shown, Compiling(log) as compiling:
        procedure = Procedure(task, Monitors(shown, compiling), watching(log, compiling), log)
        try:
            results = procedure.run()
        except Stopped:
            log("stopped: run the same command again to continue")
            return log.exit_code(130)
    result = as_json(procedure, results)
    table = procedure_table(results)
    atomic_write(os.path.join(task.folder, "report.json"), dump_json(result).encode())
    atomic_write(os.path.join(task.folder, "report.txt"), table.text().encode())
    if args.json:
        print(dump_json(result))
        return log.exit_code(0)
    print_table(table)
    print("\n".join(["", *closing_lines(result)]))
    return log.exit_code(0)


def make_task(args: argparse.Namespace) -> Task:
    """The task that the options describe. raises UsageError for options out of range, or that exclude each other"""
    from sslnet.compress.pipeline.pipeline import Task

    targets = read_targets(args)
    if targets is None:
        raise UsageError(
            "give a target: --target-flops, --target-params or --target-speedup", hint="for example --target-flops 0.3"
        )
    named = args.model or args.solver
    if not named:
        raise UsageError("give the net with --model or --solver", hint=f"for example {EXAMPLE}")
    if args.solver and args.base_lr is not None:
        raise UsageError("--base-lr is for runs without --solver", hint=f"use --set base_lr={args.base_lr:g}")
    if args.weights and args.baseline_iterations is not None:
        raise UsageError("--baseline-iterations is for runs without --weights: given weights are the baseline")
    if args.teach and args.finetune == 0:
        raise UsageError("--teach needs the fine-tuning stage, which --finetune 0 skips")
    for name, least in (("iterations", 1), ("baseline_iterations", 1), ("finetune", 0), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} must be {least} or more, not {value}")
    return Task(
        targets,
        args.output or default_folder(named),
        args.model,
        args.solver,
        args.weights,
        tuple(args.overrides),
        args.iterations,
        args.finetune,
        args.baseline_iterations,
        args.base_lr,
        args.seed,
        args.teach,
    )


def default_folder(path: str) -> str:
    """NAME_compress in the working directory; the name of a train_test.prototxt is that of its folder."""
    place = Path(os.path.abspath(path))
    return f"{place.parent.name if place.stem in ('train_test', 'train_val') else place.stem}_compress"


def as_json(procedure: Procedure, results: dict[str, Any]) -> dict[str, Any]:
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
    sparse, targets = results["sparsify"], task.targets
    return {
        "target": {
            "of": targets.of,
            "value": targets.whole,
            "layers": dict(targets.layers),
            "met": sparse["met"],
            "left": sparse["left"],
        },
        "before_finetuning": {"error": sparse["error"], "loss": sparse["loss"]},
        **outcome,
        "speedup": time["race"],
        "batch": time["batch"],
        "threads": time["threads"],
        "notes": results["compact"]["notes"],
    }


def closing_lines(result: dict[str, Any]) -> list[str]:
    """The lines at the end: the files of the small net and the next commands."""
    small = result["small"]
    names = [name for name in (small["model"], small["deploy"], small["weights"]) if name]
    lines = ["the small net:", *(f"  {name}" for name in names), "", "next:"]
    model = small["deploy"] or small["model"]
    lines.append("  " + shlex.join(["sslnet", "export", "--model", model, "--weights", small["weights"]]))
    if small["deploy"]:
        lines.append("  " + shlex.join(["sslnet", "classify", model, small["weights"]]) + " IMAGE")
    return lines
