"""The options of ``sslnet compress`` for a model in ONNX and images without a prototxt."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sslnet.cli.options import as_option
from sslnet.errors import UsageError

if TYPE_CHECKING:
    from sslnet.api.onnx_task import OnnxTask

ONLY = ("data", "preprocess", "val", "batch", "loss", "onnx_output")


def add_onnx_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("from ONNX to ONNX")
    group.add_argument("--onnx", metavar="FILE", help="the trained model (.onnx), in place of --model and --weights")
    group.add_argument(
        "--data",
        metavar="PATH",
        help="its images: a folder per class, a .npz with images and labels, or a .csv of path,label",
    )
    group.add_argument(
        "--preprocess",
        metavar="NAME",
        help="how the model takes images: imagenet-torch, cifar10, imagenet-caffe, unit (0 to 1), signed (-1 to 1) or raw; "
        "default: the one with which it is most accurate",
    )
    group.add_argument(
        "--val", type=float, metavar="X", help="share of the images for validation; default 0.1, or the folder val"
    )
    group.add_argument("--batch", type=int, metavar="N", help="images in a batch of the training; default 64")
    group.add_argument("--loss", metavar="TYPE", help="loss layer; only SoftmaxWithLoss, the default")
    group.add_argument(
        "--onnx-output", metavar="FILE", help="the small model; default: the model's name with _small.onnx"
    )


def check_onnx_options(args: argparse.Namespace) -> None:
    """Checks the options and the file to be written; raises UsageError for those that need others."""
    given = [name for name in ONLY if getattr(args, name) is not None]
    if not args.onnx:
        if args.model and str(args.model).endswith(".onnx"):
            raise UsageError(
                f"--model {args.model} is an ONNX model, not a definition",
                hint=f"sslnet compress --onnx {args.model} --data FOLDER --target-flops 0.4",
            )
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} is for --onnx")
        return
    if args.model or args.solver or args.weights:
        raise UsageError("--onnx names the net and its weights: it excludes --model, --weights and --solver")
    if not args.data:
        raise UsageError(
            "--onnx needs images: --data",
            hint="a folder with a folder of images per class, a .npz or a .csv of path,label",
        )
    if not os.path.exists(args.onnx):
        raise UsageError(f"{args.onnx} does not exist")


def prepare(args: argparse.Namespace, tell: Callable[[str], None]) -> OnnxTask:
    """Makes the net for training, in a folder beside that of the compression, which must be empty."""
    from sslnet.api.onnx_task import onnx_task

    args.output = args.output or f"{Path(args.onnx).stem}_compress"
    return onnx_task(
        args.onnx,
        args.data,
        f"{str(args.output).rstrip(os.sep)}_model",
        preprocessing=args.preprocess,
        val=args.val,
        batch=64 if args.batch is None else args.batch,
        loss=args.loss or "SoftmaxWithLoss",
        tell=tell,
        word=as_option,
    )


def write_small(args: argparse.Namespace, model: str, weights: str) -> list[str]:
    """Writes the small model; returns lines that say what was written."""
    from sslnet.api.onnx_task import small_onnx
    from sslnet.files import atomic_write
    from sslnet.report.units import size

    target = args.onnx_output or f"{Path(args.onnx).with_suffix('')}_small.onnx"
    made, difference = small_onnx(model, weights, args.onnx)
    data = made.SerializeToString()
    atomic_write(target, data)
    checked = "not compared: onnxruntime is not installed"
    if difference is not None:
        checked = f"largest difference from the small net, in onnxruntime: {difference.relative:.2g}"
    before = os.path.getsize(args.onnx)
    names = ", ".join([info.name for info in (*made.graph.input, *made.graph.output)])
    return [f"{target}: {size(len(data))}, {len(data) / before:.0%} of {args.onnx}; {names}; {checked}"]
