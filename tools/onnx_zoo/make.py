"""Writes nets and patterns as ONNX models: ``python tools/onnx_zoo/make.py FOLDER [NAME ...]``, in an environment with torch,
onnx and onnxscript; torchvision for its nets.

    --form ts17          TorchScript's exporter, operator set 17 (default)
    --form ts11, ts13    the same, other operator sets
    --form keep          TorchScript's, which keeps BatchNorm and Dropout: training=PRESERVE, without constant folding
    --form training      TorchScript's in training mode
    --form dynamo        torch's default exporter
    --form raw           torch's default exporter with optimize=False
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import nets
import patterns


def write(name: str, path: Path, form: str, free_batch: bool) -> None:
    """Exports a net or pattern to a file."""
    torch.manual_seed(0)
    if name in nets.NETS:
        build, shape = nets.NETS[name]
        net, example = patterns.randomised(build()).eval(), torch.randn(1, *shape)
    else:
        net, example = patterns.make(name)
    options: dict[str, Any] = {"input_names": ["input"], "dynamo": form in ("dynamo", "raw")}
    if form.startswith("ts"):
        options |= {"opset_version": int(form[2:])}
    elif form in ("keep", "training"):
        mode = torch.onnx.TrainingMode.PRESERVE if form == "keep" else torch.onnx.TrainingMode.TRAINING
        options |= {"opset_version": 17, "training": mode, "do_constant_folding": False}
        if form == "training":
            net.train()
    elif form == "raw":
        options |= {"optimize": False}
    if free_batch and form not in ("dynamo", "raw"):
        options |= {"dynamic_axes": {"input": {0: "batch"}}}
    elif free_batch:
        options |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    warnings.filterwarnings("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(net, (example,), str(path), **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="nets or patterns; 'nets' or 'patterns': all of them")
    parser.add_argument("--form", default="ts17")
    parser.add_argument("--free-batch", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    groups = {"nets": list(nets.NETS), "patterns": list(patterns.PATTERNS)}
    for name in [n for word in args.names or ["nets", "patterns"] for n in groups.get(word, [word])]:
        path = args.folder / f"{name}.{args.form}{'.free' if args.free_batch else ''}.onnx"
        if path.exists():
            continue
        try:
            write(name, path, args.form, args.free_batch)
        except Exception as error:  # torch cannot export it
            print(f"{name:34} not exported: {str(error).strip().splitlines()[0][:120]}", flush=True)


if __name__ == "__main__":
    main()
