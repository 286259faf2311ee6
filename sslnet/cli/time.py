"""``sslnet time``: milliseconds of each layer, of one net or of two side by side."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_deterministic_option, add_rule_options
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.timing import Timing

HELP = "Times each layer of a net, forward and backward; of two nets, how much faster the second is."
EXAMPLE = "sslnet time --model models/lenet/train_test.prototxt --model2 small.prototxt --weights2 small.caffemodel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="the net (train_test.prototxt, train_val.prototxt or deploy.prototxt)",
    )
    parser.add_argument("--weights", metavar="FILE", help="its weights; default: what its fillers give")
    parser.add_argument("--model2", "--compare", metavar="FILE", help="a second net, timed in turns with the first")
    parser.add_argument("--weights2", metavar="FILE", help="the second net's weights")
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help="runs that count; default 50")
    parser.add_argument("--batch", type=int, metavar="N", help="images a run; default: what the net says")
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TRAIN", help="phase of the net; default TRAIN")
    parser.add_argument("--forward-only", action="store_true", help="leave backward out")
    add_rule_options(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute with; default: one a core")
    add_deterministic_option(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.compiling import Compiling
    from sslnet.cli.log import Log
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import stages, use_threads
    from sslnet.report import dump_json, print_table
    from sslnet.report.timing import timing_table
    from sslnet.timing import open_net, time_nets

    use_threads(args.threads, args.deterministic)
    if args.weights2 and not args.model2:
        raise UsageError("--weights2 belongs to --model2", hint="name the second net with --model2")
    state = {"phase": pb.Phase.Value(args.phase), "level": args.level, "stages": stages(args.stage)}
    state["lean"] = args.phase == "TRAIN" or args.forward_only
    nets = [open_net(args.model, args.weights, batch=args.batch, **state)]
    if args.model2:
        nets.append(open_net(args.model2, args.weights2, batch=args.batch, **state))
    tell_notes(*(net.definition for net in nets))
    with Compiling(Log()):
        timing = time_nets(nets, args.iterations, forward_only=args.forward_only)
    if args.json:
        print(dump_json(as_json(timing)))
    else:
        print_table(timing_table(timing))
    return 0


def as_json(timing: Timing) -> dict[str, Any]:
    """The timing with times in milliseconds, and with two nets the speedups by layer name."""
    result: dict[str, Any] = {
        "iterations": timing.iterations,
        "threads": timing.threads,
        "peak_gflops_per_second": timing.peak / 1e9,
        "nets": [
            {
                "name": net.name,
                "model": net.model,
                "phase": net.phase,
                "batch": net.batch,
                "flops": net.flops,
                "forward_ms": _ms(net.forward),
                "backward_ms": _ms(net.backward),
                "memory_bytes": {
                    "blobs": net.memory.blobs,
                    "layers": net.memory.layers,
                    "params": net.memory.params,
                },
                "layers": [
                    {
                        "name": layer.name,
                        "type": layer.type,
                        "kernel": layer.kernel,
                        "timed": not layer.source,
                        "forward_ms": _ms(layer.forward),
                        "backward_ms": _ms(layer.backward),
                        "flops": layer.flops,
                        "flops_left": layer.flops_left,
                        "gflops_per_second": layer.rate / 1e9 if layer.rate else None,
                        "filters": layer.filters,
                        "columns": layer.columns,
                    }
                    for layer in net.layers
                ],
            }
            for net in timing.nets
        ],
    }
    if len(timing.nets) > 1:
        result["speedup"] = _speedups(timing)
    return result


def _ms(spread: Any) -> dict[str, float] | None:
    if spread is None:
        return None
    return {"median": 1e3 * spread.median, "low": 1e3 * spread.low, "high": 1e3 * spread.high}


def _speedups(timing: Timing) -> dict[str, Any]:
    """First over second: of each layer that both have, forward and backward together, and of the whole net."""
    first, second = timing.nets[0], timing.nets[1]
    theirs = {layer.name: layer for layer in second.layers}
    layers = {
        layer.name: {
            "time": layer.seconds / theirs[layer.name].seconds,
            "flops": layer.flops / theirs[layer.name].flops if theirs[layer.name].flops else None,
        }
        for layer in first.layers
        if layer.name in theirs and not layer.source and theirs[layer.name].seconds
    }
    whole = {"time": first.seconds / second.seconds, "flops": first.flops / second.flops if second.flops else None}
    return {"layers": layers, "whole": whole}
