"""``sslnet compact``: removes zeros from a net, checks that its outputs are the same, and writes the smaller net."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslnet.cli.options import add_model_option, add_rule_options
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.compress.compaction.compact import Compaction

HELP = "Removes zero filters and everything that depends on them alone: a smaller net with the same outputs."
EXAMPLE = (
    "sslnet compact --model models/digits/train_test.prototxt "
    "--weights snapshots/digits_ssl/digits_ssl_iter_3000.caffemodel"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_option(parser)
    parser.add_argument("--weights", metavar="FILE", help="its pruned weights (.caffemodel); default: the snapshot's")
    parser.add_argument("--snapshot", metavar="FILE",
        help="solver state of the run (.solverstate): compacted as well, so that the smaller net can continue training")  # fmt: skip
    parser.add_argument(
        "--output", metavar="PREFIX", help="where to write PREFIX.prototxt, PREFIX_deploy.prototxt, PREFIX.caffemodel; "
        "a folder takes the weights' name; default: beside the weights, with _compact",
    )  # fmt: skip
    parser.add_argument("--drop-constants", action="store_true",
        help="drop the constant outputs (biases) of removed filters; the outputs of the net then change")  # fmt: skip
    parser.add_argument("--standard-only", action="store_true",
        help="write a net for Caffe 1.0 and OpenCV: full kernels with their zero columns, and no fields of sslnet's own")  # fmt: skip
    parser.add_argument(
        "--phase", choices=("TRAIN", "TEST"), default="TEST", help="phase in which the nets are compared; default TEST"
    )
    add_rule_options(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads; default: one per physical core")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet import sslnet_pb2 as pb
    from sslnet.api.compact import compact
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import stages, use_threads
    from sslnet.prototxt import read_net
    from sslnet.report import dump_json, print_table
    from sslnet.report.compaction import compaction_table

    use_threads(args.threads)
    args.weights = weights_of(args)
    prefix = output_prefix(args.model, args.weights, args.output)
    if args.snapshot:
        state = f"{prefix}.solverstate"
        if os.path.realpath(state) == os.path.realpath(args.snapshot):
            raise UsageError(
                f"{state} is an input of this command and would be overwritten", hint="choose another --output"
            )
    definition = read_net(args.model)
    tell_notes(definition)
    result = compact(
        definition,
        args.weights,
        phase=pb.Phase.Value(args.phase),
        level=args.level,
        stages=stages(args.stage),
        drop_constants=args.drop_constants,
        standard_only=args.standard_only,
        snapshot=args.snapshot,
    )
    paths, compaction = result.save(prefix), result.details
    if args.json:
        print(dump_json(as_json(args, compaction, paths)))
        return 0
    print_table(compaction_table(compaction))
    print("\n".join(["", file_size_line(args.weights, paths["weights"]), "", *closing_lines(args, paths)]))
    return 0


def weights_of(args: argparse.Namespace) -> str:
    """The weights given, or those of the snapshot. raises UsageError when there is neither"""
    if args.weights:
        return str(args.weights)
    if not args.snapshot:
        raise UsageError("--weights FILE is needed, or --snapshot FILE with weights beside it")
    from sslnet.solver.snapshot import find_weights, read_state

    return str(find_weights(read_state(args.snapshot), args.snapshot))


def output_prefix(model: str, weights: str, output: str | None, suffix: str = "_compact") -> str:
    """How the names of the files begin that are written: see ``NetResult.save``.

    raises UsageError when an output file would overwrite an input file
    """
    stem = Path(weights).name.removesuffix(".h5").removesuffix(".caffemodel") + suffix
    if output is None:
        prefix = os.path.join(os.path.dirname(weights), stem)
    elif output.endswith(os.sep) or os.path.isdir(output):
        prefix = os.path.join(output, stem)
    else:
        prefix = output.removesuffix(".prototxt").removesuffix(".caffemodel")
    inputs = {os.path.realpath(path) for path in (model, weights)}
    for path in (f"{prefix}.prototxt", f"{prefix}_deploy.prototxt", f"{prefix}.caffemodel"):
        if os.path.realpath(path) in inputs:
            raise UsageError(
                f"{path} is an input of this command and would be overwritten", hint="choose another --output"
            )
    return prefix


def train_line(model: str, *start: str) -> str:
    """The printed command that continues the training of a net. start: --weights FILE or --snapshot FILE"""
    fields = ["--set", f"net={model}", "--set", f"snapshot_prefix={model.removesuffix('.prototxt')}"]
    return "  sslnet train --solver SOLVER " + shlex.join([*fields, *start])


def file_size_line(before: str, after: str) -> str:
    from sslnet.report.units import factor, size

    sizes = os.path.getsize(before), os.path.getsize(after)
    return f"weights on disk: {size(sizes[0])} -> {size(sizes[1])} ({factor(sizes[0] / sizes[1])} smaller)"


def closing_lines(args: argparse.Namespace, paths: dict[str, str]) -> list[str]:
    """The lines at the end: the written files and the next commands."""
    small = ["--weights", paths["weights"]]
    compare = [
        "--model",
        args.model,
        "--weights",
        args.weights,
        "--model2",
        paths["model"],
        "--weights2",
        paths["weights"],
    ]
    lines = [
        "wrote",
        *(f"  {path}" for path in paths.values()),
        "",
        "next:",
        "  " + shlex.join(["sslnet", "time", *compare]),
    ]
    if "deploy" in paths:
        lines.append("  " + shlex.join(["sslnet", "test", "--model", paths["model"], *small]))
        goes_on = ["--snapshot", paths["state"]] if "state" in paths else small
        lines += [
            "to continue training it, with a solver of your choice:",
            train_line(paths["model"], *goes_on),
        ]
    return lines


def as_json(args: argparse.Namespace, compaction: Compaction, paths: dict[str, str]) -> dict[str, Any]:
    from sslnet.report.compaction import totals

    before, after = totals(compaction.layers)
    difference = compaction.difference
    return {
        "model": args.model,
        "weights": args.weights,
        "output": paths,
        "batch": compaction.batch,
        "layers": compaction.layers,
        "total": {"before": before, "after": after},
        "weights_bytes": {"before": os.path.getsize(args.weights), "after": os.path.getsize(paths["weights"])},
        "difference": {
            "absolute": difference.absolute,
            "relative": difference.relative,
            "inputs": difference.inputs,
            "blobs": difference.blobs,
        },
        "constants": {
            "bias": compaction.constants,
            "map": compaction.maps,
            "factor": compaction.factors,
            "carrier": compaction.carriers,
        },
        "notes": compaction.notes,
    }
