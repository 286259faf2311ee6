"""``sslnet export``: writes a net with its weights as an ONNX model."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from sslnet.cli.options import add_rule_options
from sslnet.errors import UsageError, printable

HELP = "Writes a net as an ONNX model for other engines, checked in onnxruntime."
EXAMPLE = (
    "sslnet export --model models/digits/deploy.prototxt "
    "--weights snapshots/digits_ssl/digits_ssl_iter_3000.caffemodel --output digits.onnx"
)


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
    need_onnx()
    from sslnet.cli.notes import tell_notes
    from sslnet.cli.options import stages
    from sslnet.compress.compaction.deploy import deploy_net
    from sslnet.exchange.export import export, preprocessing
    from sslnet.files import atomic_write
    from sslnet.report.units import size

    target = args.output or args.weights.removesuffix(".h5").removesuffix(".caffemodel") + ".onnx"
    check_target(target, args.force)
    net, message = deploy_net(args.model, args.weights, level=args.level, stages=stages(args.stage))
    tell_notes(net.definition)
    steps = preprocessing(message)
    model, difference = export(net, {"preprocessing": steps, "channel_order": "as in the net's training data"})
    data = model.SerializeToString()
    atomic_write(target, data)
    relative = difference.relative if difference is not None else None
    if args.json:
        record = {"output": target, "bytes": len(data), "nodes": len(model.graph.node), "difference": relative}
        print(json.dumps(record | {"inputs": shapes(model.graph.input), "outputs": shapes(model.graph.output)}))
        return 0
    print(f"{target}: {size(len(data))}, {len(model.graph.node)} nodes, operator set {model.opset_import[0].version}")
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


def shapes(infos: Any) -> dict[str, list[int | str]]:
    """The shape of each input or output by name; the batch axis is "N" where it is free."""
    return {info.name: [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos}


def check_target(path: str, force: bool) -> None:
    """Checks the output file. raises UsageError if it exists, unless ``force``, or is a folder, a device or a FIFO"""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{path} is not a regular file", hint="choose another file with --output")
    if os.path.exists(path) and not force:
        raise UsageError(f"{path} exists", hint="--force overwrites it, --output names another file")


def need_onnx() -> None:
    """Checks for the package onnx. raises UsageError when it is not installed"""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UsageError("this needs the package onnx", hint='pip install "sslnet[onnx]"') from None
