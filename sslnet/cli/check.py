"""``sslnet check``: compares the outputs of two nets and the sizes of their layers."""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_rule_options
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.compress.compaction.check import Check

HELP = "Compares two nets on the same data: how much their outputs differ, and the size and cost of each layer."
EXAMPLE = (
    "sslnet check --model models/lenet/deploy.prototxt --weights lenet.caffemodel "
    "--model2 small_deploy.prototxt --weights2 small.caffemodel"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="the first net; its data layers provide the data"
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="its weights")
    parser.add_argument("--model2", required=True, metavar="FILE", help="the second net")
    parser.add_argument("--weights2", required=True, metavar="FILE", help="the second net's weights")
    parser.add_argument("--batches", type=int, default=4, metavar="N", help="batches to run; default 4")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, metavar="X", help="difference that counts as rounding, as a part of "
        "the largest output; default 1e-4",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random inputs; default 0")
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TEST", help="phase of both nets; default TEST")
    add_rule_options(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Runs the command. Exit code 0: the outputs agree within the tolerance; 1: they do not."""
    from sslnet import sslnet_pb2 as pb
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import stages, use_threads
    from sslnet.cli.progress import progress
    from sslnet.compress.compaction.check import check
    from sslnet.net.input_layers import source_shapes, with_inputs
    from sslnet.net.net import Net
    from sslnet.net.weights import copy_all_weights
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json, print_table
    from sslnet.report.check import difference_table, verdict
    from sslnet.report.compaction import size_table

    if args.batches < 1:
        raise UsageError(f"--batches must be at least 1, not {args.batches}")
    if not (args.tolerance >= 0 and math.isfinite(args.tolerance)):
        raise UsageError(f"--tolerance must be a finite number, 0 or above, not {args.tolerance:g}")
    use_threads(args.threads)
    state: dict[str, Any] = {"phase": pb.Phase.Value(args.phase), "level": args.level, "stages": stages(args.stage)}
    first = Net(args.model, **state)
    copy_all_weights(first.params, args.weights)
    second = Net(with_inputs(read_net(args.model2), source_shapes(first)), **state)
    copy_all_weights(second.params, args.weights2)
    tell_notes(first.definition, second.definition)
    with progress("batches", args.batches) as advance:
        found = check(first, second, batches=args.batches, seed=args.seed, on_batch=advance)
    same = found.difference.relative <= args.tolerance
    if args.json:
        print(dump_json(as_json(args, found, same)))
    else:
        print_table(difference_table(found, args.tolerance))
        print()
        print_table(size_table("Sizes, first -> second", found.layers))
        print(f"\n{verdict(found, args.tolerance)}")
    sys.stdout.flush()
    return 0 if same else 1


def as_json(args: argparse.Namespace, found: Check, same: bool) -> dict[str, Any]:
    from sslnet.report.compaction import totals

    before, after = totals(found.layers)
    return {
        "model": args.model,
        "model2": args.model2,
        "same": same,
        "tolerance": args.tolerance,
        "batches": found.batches,
        "batch": found.images,
        "inputs": found.difference.inputs,
        "blobs": [
            {"name": blob.name, "largest": blob.largest, "absolute": blob.absolute, "relative": blob.relative}
            for blob in found.difference.blobs
        ],
        "total": {"first": before, "second": after},
        "weights_bytes": {"first": os.path.getsize(args.weights), "second": os.path.getsize(args.weights2)},
    }
