"""Inference: forward passes of whole nets in phase TEST, against onnxruntime and torch.

Ours packs its weights once. onnxruntime runs the ONNX model that ``sslnet export`` writes for the same net, with all of its graph optimisations; torch
runs the same net in inference mode. All three must agree before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.arguments import positive
from benchmarks.machine import import_peer, use_threads
from benchmarks.tables import Column, Row, best_ratio, own_times, ratio, times_of
from benchmarks.turns import OURS, compare
from benchmarks.workloads import deploy_net
from sslnet.net.net import Net

HELP = "Latency of whole nets in phase TEST, for one image and for 16."
SECONDS = 0.8
MODELS = ("lenet", "resnet20", "squeezenet", "mobilenet", "alexnet")
TOLERANCE = 1e-3
"""The largest difference of outputs, relative to their size."""

COLUMNS = [
    Column("net", 12, lambda row: row["what"], left=True),
    Column("images", 6, lambda row: row["part"].removeprefix("batch ")),
    Column("threads", 7, lambda row: str(row["threads"])),
    Column("ours ms", 20, own_times),
    Column("onnxruntime", 11, times_of("onnxruntime")),
    Column("torch", 8, times_of("torch")),
    Column("ch.last", 8, times_of("channels_last")),
    Column("ratio", 17, ratio),
    Column("of best", 7, best_ratio),
]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help=", ".join(MODELS)
    )
    parser.add_argument("--batches", nargs="+", type=positive, default=[1, 16], metavar="N", help="default 1 16")


def measure(options: argparse.Namespace) -> Iterator[Row]:
    torch = None if options.alone else import_peer("torch")
    onnxruntime = None if options.alone else import_peer("onnxruntime")
    for threads in options.threads:
        use_threads(threads, torch)
        for model in options.models:
            for batch in options.batches:
                net = deploy_net(model, batch)
                net.plan(fused=True).hold_weights(True)
                ways: dict[str, Callable[[], np.ndarray]] = {OURS: lambda net=net: net.forward()[net.outputs[0]]}
                if onnxruntime is not None:
                    ways["onnxruntime"] = onnx_way(net, onnxruntime, threads)
                if torch is not None:
                    ways |= torch_ways(net, torch)
                check(f"{model} at batch {batch}", ways)
                row = compare(ways, options.seconds, threads=threads, rounds=options.rounds)
                yield {"what": model, "part": f"batch {batch}", "threads": threads} | row


def onnx_way(net: Net, onnxruntime: Any, threads: int) -> Callable[[], np.ndarray]:
    from sslnet.exchange.export import to_onnx

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.log_severity_level = 3
    model = to_onnx(net).SerializeToString()
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    feeds = {name: net.blobs[name].data.copy() for name in net.inputs}
    return lambda: session.run(None, feeds)[0]


def torch_ways(net: Net, torch: Any) -> dict[str, Callable[[], np.ndarray]]:
    from benchmarks.torch_peer import make_peer

    ways = {}
    for name, layout in (("torch", torch.contiguous_format), ("channels_last", torch.channels_last)):
        peer = make_peer(net).to(memory_format=layout)
        inputs = {key: torch.from_numpy(net.blobs[key].data.copy()).to(memory_format=layout) for key in net.inputs}

        def run(peer: Any = peer, inputs: Any = inputs) -> np.ndarray:
            with torch.inference_mode():
                return peer(inputs)[net.outputs[0]].numpy()

        ways[name] = run
    return ways


def check(what: str, ways: dict[str, Callable[[], np.ndarray]]) -> None:
    """Raises ArithmeticError when an output differs from that of sslnet."""
    ours = ways[OURS]().copy()
    if not np.ptp(ours) > 0:
        raise ArithmeticError(f"{what}: all outputs are the same: nothing was compared")
    for name in [name for name in ways if name != OURS]:
        theirs = ways[name]().reshape(ours.shape)
        error = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        if not error < TOLERANCE:
            raise ArithmeticError(f"{what}: the outputs of ours and {name} differ by {error:.2g}")
