"""The figures of a recipe: its test error, the remaining parts of each layer, its speedup."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

from paper.recipes import RECIPES
from paper.steps import Nets, Steps
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net
from sslnet.net.weights import copy_all_weights
from sslnet.sparsity.measure import LayerSparsity, measure

Figures = dict[str, Any]


def figures_of(name: str, steps: Steps, work: Path) -> Figures:
    """The figures of a recipe whose steps are complete; without times if they were not measured.

    error       fraction of the test images with a wrong class
    layers      {layer: {part: kept}} of nonzero filters, columns, channels, and the remaining FLOPs relative to the dense net
    parameters  number of stored values of the final net; nonzero: number of nonzero ones; bytes: size of a file with these only
    speedup     {layer: speedup over the dense net}, "net" for the whole forward pass; one thread, median of all runs
    """
    recipe = RECIPES[name]
    dense = steps.final(recipe.baseline or name)
    final = steps.final(name)
    test = json.loads((work / f"{name}/4_test/test.json").read_text())
    net = open_net(final, work)
    blobs = measure(net)
    before, after = matrices(measure(open_net(dense, work))), matrices(blobs)
    found: Figures = {
        "error": round(1 - test["outputs"]["accuracy"], 6),
        "layers": {layer: left(before[layer], after[layer]) for layer in before},
        "parameters": sum(blob.elements.total for blob in blobs),
        "nonzero": sum(blob.elements.kept for blob in blobs),
        "bytes": net.to_proto().ByteSize(),
    }
    timed = work / f"{name}/5_time/time.json"
    if recipe.baseline and timed.exists():
        found |= speedups(json.loads(timed.read_text()), list(before))
    here = machine()
    found["machine"] = f"{here['cpu']}, {here['vector']}"
    found["date"] = date.today().isoformat()
    return found


def matrices(blobs: list[LayerSparsity]) -> dict[str, LayerSparsity]:
    """The weight blob of each layer that has a weight matrix."""
    return {blob.layer: blob for blob in blobs if blob.filters is not None}


def open_net(nets: Nets, work: Path) -> Net:
    net = Net(os.fspath(work / nets.deploy), phase=pb.TEST)
    copy_all_weights(net.params, work / nets.weights)
    return net


def left(before: LayerSparsity, after: LayerSparsity) -> dict[str, Any]:
    """The remaining parts of the dense layer: [kept, total]; rows times columns for the FLOPs."""
    found: dict[str, Any] = {}
    for what in ("filters", "columns", "channels"):
        found[what] = [getattr(after, what).kept, getattr(before, what).total]
    rows, columns = found["filters"], found["columns"]
    found["flops"] = round(rows[0] * columns[0] / (rows[1] * columns[1]), 6)
    return found


def speedups(timing: dict[str, Any], layers: list[str]) -> Figures:
    """The speedups in the output of `sslnet time --json` for the dense net and the final one."""
    found = {layer: timing["speedup"]["layers"][layer]["time"] for layer in layers}
    found["net"] = timing["speedup"]["whole"]["time"]
    small = timing["nets"][1]
    return {
        "speedup": {name: round(value, 3) for name, value in found.items()},
        "milliseconds": [round(net["forward_ms"]["median"], 4) for net in timing["nets"]],
        "batch": small["batch"],
        "threads": timing["threads"],
    }
