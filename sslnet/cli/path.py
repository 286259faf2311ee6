"""``sslnet path``: trains with rising strengths and reports the trade-off between error and size."""

from __future__ import annotations

import argparse
import contextlib
import math
import shlex
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_deterministic_option
from sslnet.errors import UsageError, printable

if TYPE_CHECKING:
    from sslnet.compress.pipeline import regularization_path as tradeoff
    from sslnet.prototxt import Definition

HELP = "Trains with rising group lasso strengths: a table of error against FLOPs, parameters and time."
EXAMPLE = "sslnet path --solver solvers/digits_ssl.prototxt --strengths 0.1:10:9 --iterations 500"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver's prototxt, with a group lasso")
    parser.add_argument("--weights", metavar="FILE", help="the trained net to start from (.caffemodel)")
    parser.add_argument("--strengths", default="0.1:10:9", metavar="A:B:N|LIST",
        help="factors on all strengths: N factors from A to B, evenly on a log scale, or a list 0.1,1,10; default 0.1:10:9")  # fmt: skip
    parser.add_argument("--iterations", type=int, metavar="N",
        help="iterations per point; default: the solver's max_iter divided among the points")  # fmt: skip
    parser.add_argument("--finetune", type=int, default=0, metavar="N",
        help="fine-tuning iterations, without penalty and with zeros kept, on a copy of each point; default 0")  # fmt: skip
    parser.add_argument("--output", metavar="PREFIX", help="where to write PREFIX.json, PREFIX.csv and the points; "
        "default: the solver's snapshot_prefix with _path")  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", help="draw the curves (.png, .pdf, .svg)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help="override a solver field; may be repeated")  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    add_deterministic_option(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet import prototxt
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import RunLog
    from sslnet.cli.monitors import Monitors
    from sslnet.cli.options import use_threads
    from sslnet.cli.runs import solver_monitor, watching
    from sslnet.compress.pipeline.regularization_path import follow
    from sslnet.compress.pipeline.training import Stopped
    from sslnet.files import atomic_write
    from sslnet.report import dump_json, print_table
    from sslnet.report.plots import check_plot
    from sslnet.report.tradeoff import plot_tradeoff, tradeoff_csv, tradeoff_table

    use_threads(args.threads, args.deterministic)
    if args.plot:
        check_plot(args.plot)
    definition = prototxt.apply_overrides(prototxt.read_solver(args.solver), args.overrides)
    plan = make_plan(args, definition)
    log = RunLog()
    with contextlib.closing(solver_monitor(log)) as shown, Compiling(log) as compiling:
        try:
            path = follow(plan, Monitors(shown, compiling), watching(log, compiling), log)
        except Stopped:
            log("stopped: run the same command again to continue with this point")
            return log.exit_code(130)
    result = as_json(args, path)
    atomic_write(f"{plan.prefix}.json", dump_json(result).encode())
    atomic_write(f"{plan.prefix}.csv", tradeoff_csv(path).encode())
    if args.plot:
        plot_tradeoff(path, args.plot)
    if args.json:
        print(dump_json(result))
        return log.exit_code(0)
    print_table(tradeoff_table(path))
    written = [f"{plan.prefix}.json", f"{plan.prefix}.csv", *([args.plot] if args.plot else [])]
    lines = ["", "wrote", *(f"  {name}" for name in written), *next_lines(definition, path)]
    print("\n".join(map(printable, lines)))
    return log.exit_code(0)


def make_plan(args: argparse.Namespace, definition: Definition) -> tradeoff.PathPlan:
    """The plan that the options describe. raises UsageError for options out of range"""
    from sslnet.compress.pipeline.regularization_path import PathPlan
    from sslnet.solver.snapshot import snapshot_prefix

    factors = parse_strengths(args.strengths)
    param = definition.message
    iterations = args.iterations if args.iterations is not None else -(-param.max_iter // len(factors))
    for name, value, least in (("--iterations", iterations, 1), ("--finetune", args.finetune, 0)):
        if value < least:
            raise UsageError(f"{name} must be {least} or more, not {value}")
    prefix = (args.output or snapshot_prefix(definition) + "_path").removesuffix(".json").removesuffix(".csv")
    return PathPlan(
        definition,
        args.weights,
        factors,
        iterations,
        args.finetune,
        prefix,
        seed=param.random_seed if param.random_seed >= 0 else 1,
    )


def parse_strengths(text: str) -> list[float]:
    """Ascending factors from ``0.1:10:9`` or ``0.1,1,10``. raises UsageError"""
    from sslnet.compress.pipeline.regularization_path import geometric

    advice = "as 0.1:10:9 for nine of them, or as a list 0.1,1,10"
    try:
        if ":" in text:
            first, last, number = text.split(":")
            ends = [float(first), float(last)]
            count = int(number)
        else:
            ends, count = sorted({float(word) for word in text.split(",") if word.strip()}), 0
    except ValueError:
        raise UsageError(f"--strengths cannot be read from {text!r}", hint=f"write it {advice}") from None
    if not ends or not all(value > 0 and math.isfinite(value) for value in ends):
        raise UsageError(f"--strengths must be above 0, not {text}", hint=f"write it {advice}")
    if ":" not in text:
        return ends
    if count < 1 or ends[0] > ends[1] or (count > 1 and ends[0] == ends[1]):
        raise UsageError(f"--strengths {text} is not a range from weak to strong", hint=f"write it {advice}")
    return geometric(ends[0], ends[1], count)


def as_json(args: argparse.Namespace, path: tradeoff.Path) -> dict[str, Any]:
    from sslnet.report.tradeoff import COSTS

    best = {cost: path.best(cost) for cost in COSTS}
    return {
        "solver": args.solver,
        "weights": args.weights,
        "measure": path.measure,
        "points": [
            {
                "factor": point.factor,
                "error": point.error,
                "loss": point.loss,
                "flops": point.flops,
                "parameters": point.parameters,
                "forward_ms": 1e3 * point.seconds,
                "speedup": point.speedup,
                "best": {"flops": best["flops"][k], "parameters": best["parameters"][k], "time": best["seconds"][k]},
                "weights": point.weights,
            }
            for k, point in enumerate(path.points)
        ],
        "ended": path.ended or None,
    }


def next_lines(definition: Definition, path: tradeoff.Path) -> list[str]:
    """The command that compacts a point; empty for a net without a file of its own."""
    from sslnet.compress.evaluation import find_trial

    model = find_trial(definition, 0).definition.path
    chosen = [point for point, good in zip(path.points, path.best("flops")) if good and point.factor is not None]
    if model is None or not chosen or chosen[0].weights is None:
        return []
    command = shlex.join(["sslnet", "compact", "--model", model, "--weights", chosen[0].weights])
    return ["", "next, with the weights of the point that you choose:", f"  {command}"]
