"""``sslnet import``: converts an ONNX model to a prototxt and weights."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from sslnet.errors import RunError, UsageError, printable

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
    from sslnet import prototxt
    from sslnet.cli.export import check_target, need_onnx
    from sslnet.files import atomic_path
    from sslnet.net.weights import to_bytes

    need_onnx()
    from sslnet.exchange.importing import from_onnx

    if args.batch < 1:
        raise UsageError(f"--batch must be at least 1, not {args.batch}")
    if not Path(args.source).name:
        raise UsageError(f'"{args.source}" is not the name of a file')
    prefix = args.output or str(Path(args.source).with_suffix(""))
    model, weights = f"{prefix}.prototxt", f"{prefix}.caffemodel"
    if not os.path.basename(prefix):
        raise UsageError(f'--output "{prefix}" is a folder; give a prefix for the file names')
    for path in (model, weights):
        check_target(path, args.force)
    imported = from_onnx(args.source, args.batch)
    data, text = to_bytes(imported.weights, weights), prototxt.write(imported.message)
    try:
        os.makedirs(os.path.dirname(prefix) or ".", exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder of {prefix}: {error.strerror or error}") from error
    with atomic_path(weights) as new_weights:  # both or none
        _write(new_weights, data)
        with atomic_path(model) as new_model:
            _write(new_model, text.encode())
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


def _write(path: Path, data: bytes) -> None:
    """Writes a file and flushes it, so that a full or broken disk is noticed before the first of two files is in place."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
