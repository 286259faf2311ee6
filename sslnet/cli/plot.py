"""``sslnet plot``: draws filters, connections, errors and training runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from sslnet.errors import UsageError

HELP = "Draws pictures: filters, connections of pixels, error against cost, a training run."
EXAMPLE = "sslnet plot training snapshots/digits_ssl/metrics.jsonl --output training.svg"
KINDS = ("filters", "connections", "error", "training")
OPTIONS = {
    "layer": ("filters", "connections"),
    "scale": ("filters", "connections"),
    "bgr": ("filters",),
    "shape": ("connections",),
    "cost": ("error",),
    "baseline": ("error",),
    "of": ("training",),
    "accuracy": ("error", "training"),
}
"""The pictures for which each option is valid."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="WHAT", choices=KINDS, help=", ".join(KINDS))
    parser.add_argument("files", nargs="+", metavar="FILE",
        help="filters, connections: weights (.caffemodel); error: a file of sslnet path, compress or train, or a CSV; "
        "training: metrics.jsonl")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="OUT", help="the picture to write (.png, .pdf, .svg)")
    parser.add_argument("--titles", metavar="A,B", help="titles of the files in the picture; default: their names")
    parser.add_argument("--layer", metavar="NAME",
        help="layer to draw; default: the first convolution, for connections the first InnerProduct layer")  # fmt: skip
    parser.add_argument("--scale", choices=("model", "each"),
        help="colour scale: one for all filters of a model and all maps of connections (model), or one each; default model")  # fmt: skip
    parser.add_argument(
        "--bgr", action="store_true", default=None, help="the channels are in the order blue, green, red"
    )
    parser.add_argument("--shape", metavar="C,H,W", help="the image that the layer reads, or H,W; default: a square")
    parser.add_argument("--cost", metavar="A,B",
        help="costs to draw the error against: flops, parameters, forward_ms, layers; default: all that the files have")  # fmt: skip
    parser.add_argument("--baseline", type=float, metavar="X",
        help="test error in percent, or loss, of a reference net, drawn as a dashed line")  # fmt: skip
    parser.add_argument("--of", metavar="PARTS", choices=("filters", "columns", "channels", "elements"),
        help="remaining parts of each layer to draw: filters, columns, channels, elements; default filters")  # fmt: skip
    parser.add_argument("--accuracy", metavar="NAME",
        help="the test output that is an accuracy; default: those with acc in their name")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from sslnet.report.plots import check_plot

    check_plot(args.output)
    for option, kinds in OPTIONS.items():
        if getattr(args, option) is not None and args.kind not in kinds:
            raise UsageError(f"--{option} is for {' and '.join(kinds)}, not for {args.kind}")
    drawers = {"filters": filters, "connections": connections, "error": error, "training": training}
    drawers[args.kind](args, titles_of(args))
    print(args.output)
    return 0


def titles_of(args: argparse.Namespace) -> list[str]:
    """A title for each file: those given, else the file names, or the parts in which their paths differ."""
    if args.titles is not None:
        titles = [title.strip() for title in args.titles.split(",")]
        if len(titles) != len(args.files):
            raise UsageError(f"--titles names {len(titles)} of {len(args.files)} files")
        return titles
    paths = [Path(file).absolute() for file in args.files]
    stems = [path.name.removesuffix(".h5").rpartition(".")[0] or path.name for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    if len({len(path.parts) for path in paths}) > 1:
        return list(args.files)
    differ = [len(set(parts)) > 1 for parts in zip(*(path.parts for path in paths))]
    titles = ["/".join(part for part, differs in zip(path.parts, differ) if differs) for path in paths]
    return titles if any(differ) else list(args.files)


def filters(args: argparse.Namespace, titles: list[str]) -> None:
    from sslnet.report.weight_pictures import find_filters, plot_filters

    models = [find_filters(file, args.layer, title) for file, title in zip(args.files, titles)]
    plot_filters(models, args.output, each=args.scale == "each", bgr=bool(args.bgr))


def connections(args: argparse.Namespace, titles: list[str]) -> None:
    from sslnet.report.weight_pictures import find_connections, plot_connections

    shape = parse_shape(args.shape) if args.shape is not None else None
    models = [find_connections(file, args.layer, shape, title) for file, title in zip(args.files, titles)]
    plot_connections(models, args.output, each=args.scale == "each")


def parse_shape(text: str) -> list[int]:
    """Reads a shape, ``28,28`` or ``3,32,32``. raises UsageError"""
    words = text.split(",")
    if len(words) not in (2, 3) or not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"--shape cannot be read from {text!r}", hint="write it C,H,W or H,W, as 28,28")
    return [int(word) for word in words]


def error(args: argparse.Namespace, titles: list[str]) -> None:
    from sslnet.report.error_pictures import COSTS, known_costs, plot_errors, read_results

    files = [read_results(file, title, args.accuracy) for file, title in zip(args.files, titles)]
    if len({results.measure for results in files}) > 1:
        raise UsageError("some files have test errors, others only losses: they cannot be compared")
    known = known_costs(files)
    costs = [cost.strip() for cost in args.cost.split(",")] if args.cost is not None else known
    for cost in costs:
        if cost not in COSTS:
            raise UsageError(f'there is no cost "{cost}"', hint=f"costs: {', '.join(COSTS)}")
        if cost not in known:
            raise UsageError(f"--cost {cost}: not every net has it", hint=f"all have {', '.join(known) or 'nothing'}")
    if not costs:
        raise UsageError(f"the files have no cost in common, none of {', '.join(COSTS)}")
    baseline = args.baseline
    if baseline is not None and files[0].measure == "error":
        baseline /= 100
    plot_errors(files, costs, args.output, baseline)


def training(args: argparse.Namespace, titles: list[str]) -> None:
    from sslnet.report.metrics_file import read_metrics
    from sslnet.report.training_pictures import PicturedTraining, plot_training

    runs = [PicturedTraining(title, file, read_metrics(file)) for file, title in zip(args.files, titles)]
    plot_training(runs, args.output, of=args.of or "filters", accuracy=args.accuracy)
