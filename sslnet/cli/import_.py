"""``sslnet import``: converts an ONNX model to a prototxt and weights."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from sslnet.errors import UsageError, printable

HELP = "Converts an ONNX model to a prototxt and weights, checked in onnxruntime."
EXAMPLE = "sslnet import resnet.onnx --output nets/resnet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE", help="the model (.onnx)")
    parser.add_argument(
        "--output", metavar="PREFIX", help="writes PREFIX.prototxt and PREFIX.caffemodel; default: the model's name"
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="batch size, if the model leaves it open; default 1"
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    from sslnet.api.onnx import check_batch, import_onnx, need_onnx
    from sslnet.cli.export import check_target
    from sslnet.cli.options import as_option

    need_onnx()
    check_batch(args.batch, as_option)
    if not Path(args.source).name:
        raise UsageError(f'"{args.source}" is not the name of a file')
    prefix = args.output or str(Path(args.source).with_suffix(""))
    model, weights = f"{prefix}.prototxt", f"{prefix}.caffemodel"
    if not os.path.basename(prefix):
        raise UsageError(f'--output "{prefix}" is a folder; give a prefix for the file names')
    for path in (model, weights):
        check_target(path, args.force)
    result = import_onnx(args.source, batch=args.batch)
    result.save(prefix)
    imported = result.details
    relative = imported.difference.relative if imported.difference is not None else None
    if args.json:
        record = {"model": model, "weights": weights, "layers": len(imported.message.layer), "difference": relative}
        print(json.dumps(record | {"metadata": imported.metadata}))
        return 0
    print(f"{model}: {len(imported.message.layer)} layers\n{weights}: {os.path.getsize(weights):,} bytes")
    for key, value in imported.metadata.items():
        print(f"  {printable(key)}: {printable(value)}")
    if imported.too_large:
        print(f"not compared with the model: {imported.too_large}")
    elif relative is None:
        print('not compared with the model: onnxruntime is not installed (pip install "sslnet[onnx]")')
    else:
        print(
            f"largest difference from the model, in onnxruntime: {relative:.3g} of the largest output (random numbers)"
        )
    print("to train it: replace the input by a data layer and add a loss (docs/data.md)")
    return 0
