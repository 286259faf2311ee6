"""``sslnet export``: writes a net with its weights as an ONNX model."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sslnet.cli.options import add_rule_options
from sslnet.errors import UsageError, printable

if TYPE_CHECKING:
    from onnx import ValueInfoProto

HELP = "Writes a net as an ONNX model for other engines, checked in onnxruntime."
EXAMPLE = "sslnet export --model models/lenet/deploy.prototxt --weights lenet.caffemodel --output lenet.onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE",
        help="the net (deploy.prototxt; in a training net, data layers become inputs and losses become outputs)",
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="its weights (.caffemodel)")
    parser.add_argument("--output", metavar="FILE", help="the file to write; default: the weights' name with .onnx")
    parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")
    add_rule_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.api.onnx import export_onnx, need_onnx
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import stages
    from sslnet.prototxt import read_net
    from sslnet.report.units import size

    need_onnx()
    target = args.output or args.weights.removesuffix(".h5").removesuffix(".caffemodel") + ".onnx"
    check_target(target, args.force)
    definition = read_net(args.model)
    tell_notes(definition)
    exported = export_onnx(definition, args.weights, level=args.level, stages=stages(args.stage))
    model, steps, difference = exported.model, exported.preprocessing, exported.difference
    written = exported.save(target)
    relative = difference.relative if difference is not None else None
    if args.json:
        record = {"output": target, "bytes": written, "nodes": len(model.graph.node), "difference": relative}
        print(json.dumps(record | {"inputs": shapes(model.graph.input), "outputs": shapes(model.graph.output)}))
        return 0
    print(f"{target}: {size(written)}, {len(model.graph.node)} nodes, operator set {model.opset_import[0].version}")
    for title, infos in (("input", model.graph.input), ("output", model.graph.output)):
        for name, shape in shapes(infos).items():
            print(f"  {title:6} {printable(name)}  {' x '.join(map(str, shape))}")
    if steps:
        print(f"  images are expected as the training data were made: {json.dumps(steps)}")
    if relative is None:
        print('not compared with the net: onnxruntime is not installed (pip install "sslnet[onnx]")')
    else:
        print(
            f"largest difference from the net, in onnxruntime: {relative:.3g} of the largest output (on random numbers)"
        )
    return 0


def shapes(infos: Iterable[ValueInfoProto]) -> dict[str, list[int | str]]:
    """The shape of each input or output by name; the batch axis is "N" where it is free."""
    return {info.name: [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos}


def check_target(path: str, force: bool) -> None:
    """Checks the output file. raises UsageError if it exists, unless ``force``, or is a folder, a device or a FIFO"""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{path} is not a regular file", hint="choose another file with --output")
    if os.path.exists(path) and not force:
        raise UsageError(f"{path} exists", hint="--force overwrites it, --output names another file")
