"""``sslnet lowrank``: factors layers into chains of smaller ones, and writes files ready for fine-tuning."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_rule_options

if TYPE_CHECKING:
    from sslnet.compress.low_rank.low_rank import LowRank

HELP = "Factors weights into chains of smaller layers, within an error, to a FLOPs target, or to a measured speedup."
EXAMPLE = (
    "sslnet lowrank --model models/digits/train_test.prototxt "
    "--weights snapshots/digits/digits_iter_1200.caffemodel --target-flops 0.5"
)
METHODS = ("svd", "filters", "spatial", "tucker")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="the net (train_test.prototxt or deploy.prototxt)"
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="its weights (.caffemodel)")
    parser.add_argument("--error", type=float, metavar="X",
        help="largest error of a layer's weights, relative to their norm; default 0.3")  # fmt: skip
    parser.add_argument("--target-flops", type=float, metavar="X",
        help="instead of --error: the fraction of the net's FLOPs to keep, 0 to 1")  # fmt: skip
    parser.add_argument("--target-speedup", type=float, metavar="S",
        help="instead of --error: how many times as fast the deployed net's forward pass must be, as measured here")  # fmt: skip
    parser.add_argument(
        "--speedup-batch", type=int, metavar="N", help="batch size to measure the speedup with; default: the net's"
    )
    parser.add_argument("--methods", default=",".join(METHODS), metavar="A,B",
        help="methods to try, of which each layer gets the cheapest: svd (InnerProduct), filters, spatial, tucker (Convolution); "
        "default: all")  # fmt: skip
    parser.add_argument(
        "--layers", default="", metavar="A,B", help="layers to factor; default: all that become cheaper"
    )
    parser.add_argument(
        "--output", metavar="PREFIX", help="where to write PREFIX.prototxt, PREFIX_deploy.prototxt, PREFIX.caffemodel; "
        "a folder takes the weights' name; default: beside the weights, with _lowrank",
    )  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", help="draw error against FLOPs, layer by layer (.png, .pdf, .svg)")
    add_rule_options(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.api.low_rank import check_methods, checked_error, low_rank
    from sslnet.cli.compact import output_prefix, train_line
    from sslnet.cli.log import RunLog
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import as_option, stages, use_threads
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json, print_table
    from sslnet.report.low_rank import low_rank_table, plot_ranks
    from sslnet.report.plots import check_plot

    use_threads(args.threads)
    error, methods = (
        checked_error(args.error, args.target_flops, args.target_speedup, args.speedup_batch, as_option),
        stages(args.methods),
    )
    check_methods(methods, as_option)
    if args.plot:
        check_plot(args.plot)
    prefix = output_prefix(args.model, args.weights, args.output, "_lowrank")
    definition = read_net(args.model)
    tell_notes(definition)
    made = low_rank(
        definition,
        args.weights,
        error=error,
        target_flops=args.target_flops,
        target_speedup=args.target_speedup,
        speedup_batch=args.speedup_batch,
        methods=methods,
        layers=stages(args.layers),
        level=args.level,
        stages=stages(args.stage),
        tell=RunLog(),
    )
    paths, result = made.save(prefix), made.details
    if args.plot:
        plot_ranks(result, args.plot)
    if args.json:
        print(dump_json(as_json(args, result, paths)))
        return 0
    print_table(low_rank_table(result))
    print(
        "\n".join(["", "wrote", *(f"  {path}" for path in paths.values()), *([f"  {args.plot}"] if args.plot else [])])
    )
    print("\nto fine-tune it, with a solver of your choice:")
    print(train_line(paths["model"], "--weights", paths["weights"]))
    return 0


def as_json(args: argparse.Namespace, result: LowRank, paths: dict[str, str]) -> dict[str, Any]:
    from sslnet.report.compaction import totals

    before, after = totals(result.sizes)
    return {
        "model": args.model,
        "weights": args.weights,
        "output": paths,
        "error": result.error,
        "speedup": None if result.speedup is None else {"value": result.speedup.speedup, **vars(result.speedup)},
        "layers": [
            {
                "name": layer.name,
                "method": layer.method or None,
                "rank": layer.chosen.rank if layer.chosen else None,
                "error": layer.chosen.error if layer.chosen else 0.0,
                "flops": {"before": layer.flops[0], "after": layer.flops[1]},
                "parameters": {"before": layer.parameters[0], "after": layer.parameters[1]},
                "candidates": {
                    factors.METHOD: [[*c.rank, c.error, c.flops, c.parameters] for c in factors.candidates]
                    for factors in layer.factors
                },
            }
            for layer in result.layers
        ],
        "total": {"before": before, "after": after},
        "difference": {"relative": result.difference.relative, "inputs": result.difference.inputs},
        "notes": result.notes,
    }
