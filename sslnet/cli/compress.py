"""``sslnet compress``: compresses a net in one command, from training to the report, with all files in one folder."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from typing import TYPE_CHECKING, Any

from sslnet.cli.compress_onnx import add_onnx_options, check_onnx_options, prepare, write_small
from sslnet.cli.options import add_deterministic_option, as_option
from sslnet.cli.targets import add_target_options, read_targets
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.compress.control.targets import Targets
    from sslnet.compress.pipeline.task import Task

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
    add_onnx_options(parser)
    add_target_options(parser)
    parser.add_argument("--output", metavar="DIR", help="folder for all files; default: NAME_compress")
    parser.add_argument("--iterations", type=int, metavar="N",
        help="iterations of the sparsify stage, or between the rounds of pruning; default: the solver's max_iter, else 10 "
        "epochs, or half of either for pruning")  # fmt: skip
    parser.add_argument("--finetune", type=int, metavar="N",
        help="fine-tuning iterations of the small net; default: half the solver's max_iter, else 5 epochs")  # fmt: skip
    parser.add_argument("--teach", action=argparse.BooleanOptionalAction, default=None,
        help="fine-tune the small net with the baseline as its teacher, as sslnet teach does; the method prune does so "
        "unless --no-teach is given")  # fmt: skip
    parser.add_argument("--method", metavar="NAME",
        help="lasso: train with group lasso; prune: remove the least important channels in rounds, repair and train; "
        "one-shot: remove and repair, without labels or training; default: chosen by what is given")  # fmt: skip
    parser.add_argument("--rounds", type=int, metavar="N", help="prune: number of rounds; default 3, in short runs 1")
    parser.add_argument("--by", metavar="NAME",
        help="prune and one-shot: criterion of importance, as for sslnet prune; default reconstruction")  # fmt: skip
    parser.add_argument("--repair", metavar="NAME",
        help="prune and one-shot: repair without labels, as for sslnet prune; default least-squares")  # fmt: skip
    parser.add_argument("--share-out", metavar="NAME",
        help="prune and one-shot: how the removals are divided between the layers: uniform, flops or sensitivity; default "
        "sensitivity")  # fmt: skip
    parser.add_argument("--images", type=int, metavar="N",
        help="prune and one-shot: number of images for criterion and repair; default 256")  # fmt: skip
    parser.add_argument("--controls", action="store_true",
        help="also train two nets to compare with, for as many iterations: the baseline on, the small net from scratch")  # fmt: skip
    parser.add_argument("--baseline-iterations", type=int, metavar="N",
        help="iterations to train the baseline, without --weights; default: the solver's max_iter, else 20 epochs; with "
        "--weights and --controls: the iterations that the weights were trained")  # fmt: skip
    parser.add_argument(
        "--base-lr",
        type=float,
        metavar="X",
        help="initial learning rate, without --solver; default 0.01; prune: at most "
        "this or the solver's, found by short trials",
    )
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help="override a solver field; may be repeated")  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="random seed; default: the solver's, else 1")
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    add_deterministic_option(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.api.compress import run_task
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import RunLog
    from sslnet.cli.monitors import Monitors
    from sslnet.cli.options import use_threads
    from sslnet.cli.runs import solver_monitor, watching
    from sslnet.compress.pipeline.training import Stopped
    from sslnet.report import dump_json, print_table

    use_threads(args.threads, args.deterministic)
    log = RunLog()
    check_onnx_options(args)
    if args.onnx:
        read_targets_of(args)
        prepared = prepare(args, log)
        args.model, args.weights = prepared.model, prepared.weights
    task = make_task(args)
    with contextlib.closing(solver_monitor(log)) as shown, Compiling(log) as compiling:
        try:
            result = run_task(task, Monitors(shown, compiling), watching(log, compiling), log)
        except Stopped:
            log("stopped: run the same command again to continue")
            return log.exit_code(130)
    small = write_small(args, result.model, result.weights) if args.onnx else []
    if args.json:
        print(dump_json(result.report))
    else:
        print_table(result.table)
        print()
        print_table(result.training)
        print("\n".join(["", *closing_lines(result.report), *small]))
    return log.exit_code(0 if result.met else 1)


def read_targets_of(args: argparse.Namespace) -> Targets:
    """The target that the options give. raises UsageError if there is none"""
    targets = read_targets(args)
    if targets is None:
        raise UsageError(
            "give a target: --target-flops, --target-params or --target-speedup", hint="for example --target-flops 0.3"
        )
    return targets


def make_task(args: argparse.Namespace) -> Task:
    """The task that the options describe. raises UsageError for options out of range, or that exclude each other"""
    from sslnet.api.compress import check_task, default_folder
    from sslnet.compress.pipeline.task import Task

    targets = read_targets_of(args)
    named = args.model or args.solver
    if not named:
        raise UsageError("give the net with --model or --solver", hint=f"for example {EXAMPLE}")
    task = Task(
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
        args.controls,
        args.method,
        args.rounds,
        args.by,
        args.repair,
        args.share_out,
        args.images,
    )
    check_task(task, as_option)
    return task


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
