"""``sslnet restructure``: replaces convolutions by cheaper structures, and measures both nets."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_rule_options
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.compress.restructure.restructure import Restructured
    from sslnet.timing.layerwise import Timing

HELP = "Replaces convolutions by cheaper structures (separable, one-dimensional pairs, bottlenecks), and measures both nets."
EXAMPLE = (
    "sslnet restructure --form separable --layers conv2 --model models/digits/train_test.prototxt "
    "--weights snapshots/digits/digits_iter_1200.caffemodel --threads 1"
)
FORMS = ("separable", "spatial", "bottleneck", "inception")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="the net (train_test.prototxt or deploy.prototxt)"
    )
    parser.add_argument("--weights", metavar="FILE", help="its weights (.caffemodel); default: values from its fillers")
    parser.add_argument("--form", required=True, choices=FORMS,
        help="separable: a kernel for each channel, then 1 x 1; spatial: kh x 1, then 1 x kw; bottleneck: 1 x 1, kh x kw, "
        "1 x 1; inception: branches of 1 x 1, 3 x 3 and kh x kw")  # fmt: skip
    parser.add_argument("--layers", default="", metavar="A,B",
        help="convolutions to replace; default: all that become cheaper in FLOPs")  # fmt: skip
    parser.add_argument("--ratio", type=float, metavar="X",
        help="width of the structure as a part of the layer's; default 0.5; separable has none")  # fmt: skip
    parser.add_argument(
        "--fit", action="store_true", help="start from factors of the weights; default: the new layers' fillers"
    )
    parser.add_argument(
        "--relu", action="store_true", help="a ReLU after each new layer of a chain but the last; not with --fit"
    )
    parser.add_argument(
        "--output", metavar="PREFIX", help="where to write PREFIX.prototxt, PREFIX_deploy.prototxt, PREFIX.caffemodel; "
        "a folder takes the weights' name; default: beside the weights, or the net, with _FORM",
    )  # fmt: skip
    parser.add_argument(
        "--iterations", type=int, default=20, metavar="N", help="timed runs; 0: measures nothing; default 20"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="batch size of the measurement; default: the net's")
    parser.add_argument("--forward-only", action="store_true", help="measure without the backward pass")
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TRAIN",
        help="phase in which the nets are measured; default TRAIN")  # fmt: skip
    add_rule_options(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.api.restructure import check_options, restructure
    from sslnet.cli.compact import output_prefix, train_line
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import as_option, stages, use_threads
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json, print_table
    from sslnet.report.restructure import restructure_table
    from sslnet.report.timing import timing_table

    use_threads(args.threads)
    check_options(args.form, args.ratio, args.fit, args.relu, as_option)
    check(args)
    named = args.weights or args.model.removesuffix(".prototxt")
    prefix = output_prefix(args.model, named, args.output, f"_{args.form}")
    definition = read_net(args.model)
    tell_notes(definition)
    made = restructure(
        definition,
        args.weights,
        form=args.form,
        layers=stages(args.layers),
        ratio=args.ratio,
        fit=args.fit,
        relu=args.relu,
        level=args.level,
        stages=stages(args.stage),
    )
    paths, result = made.save(prefix), made.details
    timing = measure(args, result) if args.iterations else None
    interrupted = timing is not None and timing.iterations < args.iterations
    if args.json:
        print(dump_json(as_json(args, result, timing, paths)))
    else:
        print_table(restructure_table(result, timing))
        if timing is not None:
            print()
            print_table(timing_table(timing))
        print("\n".join(["", "wrote", *(f"  {path}" for path in paths.values())]))
        print("\nto train it, with a solver of your choice:")
        print(train_line(paths["model"], "--weights", paths["weights"]))
    if timing is not None and interrupted:
        print(f"interrupted after {timing.iterations} of {args.iterations} runs; the files are whole", file=sys.stderr)
    return 130 if interrupted else 0


def check(args: argparse.Namespace) -> None:
    """raises UsageError for options out of range, or that need another one"""
    if args.fit and not args.weights:
        raise UsageError("--fit needs --weights", hint="factors are of trained weights")
    if args.iterations < 0:
        raise UsageError(f"--iterations must be 0 or more, not {args.iterations}")
    if args.batch is not None and args.batch < 1:
        raise UsageError(f"--batch must be at least 1, not {args.batch}")


def measure(args: argparse.Namespace, result: Restructured) -> Timing:
    """Times both nets, with a progress bar."""
    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import RunLog
    from sslnet.cli.progress import progress
    from sslnet.timing.layerwise import WARM_UP

    with Compiling(RunLog()), progress("runs", WARM_UP + args.iterations) as report:
        return result.time(
            args.iterations,
            phase=pb.Phase.Value(args.phase),
            batch=args.batch,
            forward_only=args.forward_only,
            partial=True,
            on_run=report,
        )


def as_json(
    args: argparse.Namespace, result: Restructured, timing: Timing | None, paths: dict[str, str]
) -> dict[str, Any]:
    from sslnet.report.compaction import totals
    from sslnet.report.restructure import layer_seconds, warnings
    from sslnet.report.timing_json import timing_json

    before, after = totals(result.sizes)
    layers = []
    for layer in result.layers:
        row: dict[str, Any] = {
            "name": layer.name,
            "form": layer.form,
            "layers": list(layer.names),
            "error": layer.error,
            "flops": {"before": layer.flops[0], "after": layer.flops[1]},
            "parameters": {"before": layer.parameters[0], "after": layer.parameters[1]},
        }
        if timing is not None:
            seconds = layer_seconds(timing, layer.name, layer.names)
            row["seconds"] = {"before": seconds[0], "after": seconds[1]}
        layers.append(row)
    difference = result.difference
    return {
        "model": args.model,
        "weights": args.weights,
        "output": paths,
        "layers": layers,
        "total": {"before": before, "after": after},
        "timing": None if timing is None else timing_json(timing),
        "difference": None if difference is None else {"relative": difference.relative, "inputs": difference.inputs},
        "notes": result.notes,
        "warnings": warnings(result, timing),
    }
