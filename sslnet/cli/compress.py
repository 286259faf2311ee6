"""``sslnet compress``: the whole procedure in one command, from a net to a small one, its files in one folder."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_deterministic_option, as_option
from sslnet.cli.targets import add_target_options, read_targets
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.compress.pipeline.task import Task

HELP = "Makes a net small in one command: train, make sparse, take out, fine-tune, test, time."
EXAMPLE = "sslnet compress --model models/digits/train_test.prototxt --target-flops 0.3"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FILE", help="the net with the data of both phases (train_test.prototxt)")
    parser.add_argument("--weights", metavar="FILE", help="its trained weights; default: it is trained first")
    parser.add_argument("--solver", metavar="FILE", help="how to train; default: SGD with momentum, see docs/cli.md")
    add_target_options(parser)
    parser.add_argument("--output", metavar="DIR", help="folder of all files; default: NAME_compress")
    parser.add_argument("--iterations", type=int, metavar="N",
        help="in which it becomes sparse; default: the solver's max_iter, else 10 epochs")  # fmt: skip
    parser.add_argument("--finetune", type=int, metavar="N",
        help="of the small net; default: half the solver's max_iter, else 5 epochs")  # fmt: skip
    parser.add_argument("--teach", action="store_true",
        help="the small net is fine-tuned beside the baseline, towards its scores, as sslnet teach does")  # fmt: skip
    parser.add_argument("--baseline-iterations", type=int, metavar="N",
        help="without --weights; default: the solver's max_iter, else 20 epochs")  # fmt: skip
    parser.add_argument("--base-lr", type=float, metavar="X", help="rate to begin with, without --solver; default 0.01")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help="override a field of the solver; may be given several times")  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="of all that is random; default: the solver's, else 1")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute with; default: one a core")
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
    task = make_task(args)
    log = RunLog()
    with contextlib.closing(solver_monitor(log)) as shown, Compiling(log) as compiling:
        try:
            result = run_task(task, Monitors(shown, compiling), watching(log, compiling), log)
        except Stopped:
            log("stopped: the same command goes on from here")
            return log.exit_code(130)
    if args.json:
        print(dump_json(result.report))
        return log.exit_code(0)
    print_table(result.table)
    print("\n".join(["", *closing_lines(result.report)]))
    return log.exit_code(0)


def make_task(args: argparse.Namespace) -> Task:
    """raises UsageError for options out of range, or that do not belong together"""
    from sslnet.api.compress import check_task, default_folder
    from sslnet.compress.pipeline.task import Task

    targets = read_targets(args)
    if targets is None:
        raise UsageError(
            "say how small: --target-flops, --target-params or --target-speedup", hint="as --target-flops 0.3"
        )
    named = args.model or args.solver
    if not named:
        raise UsageError("say which net: --model or --solver", hint=f"as {EXAMPLE}")
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
    )
    check_task(task, as_option)
    return task


def closing_lines(result: dict[str, Any]) -> list[str]:
    """Where the small net is, and what to type next."""
    small = result["small"]
    names = [name for name in (small["model"], small["deploy"], small["weights"]) if name]
    lines = ["the small net:", *(f"  {name}" for name in names), "", "next:"]
    model = small["deploy"] or small["model"]
    lines.append("  " + shlex.join(["sslnet", "export", "--model", model, "--weights", small["weights"]]))
    if small["deploy"]:
        lines.append("  " + shlex.join(["sslnet", "classify", model, small["weights"]]) + " IMAGE")
    return lines
