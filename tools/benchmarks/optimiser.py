"""The update of AlexNet's 61 million parameters: ours with and without proximal operators, against torch's fused kernels.

Momentum and weight decay on both sides; the gradients are random numbers and stay the same. torch has no prox: it is
timed without one, so a ratio below 1 says that ours, prox included, is faster than torch's plain step. Gigabytes a second
count what must move at the least: SGD reads w, g, h and writes w, h; Adam reads four arrays and writes three.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.machine import import_peer, use_threads
from benchmarks.tables import Column, Row, best_ratio, own_times, ratio, times_of
from benchmarks.turns import OURS, compare
from benchmarks.workloads import MODELS, fill_parameters
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.input_layers import with_inputs
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.solver.penalized_update import penalize, steps_of
from sslnet.solver.updates import make_updates

HELP = "SGD with and without prox, and Adam, on the 61 million parameters of AlexNet."
SECONDS = 2.0
RATE, MOMENTUM, DECAY, STRENGTH = 1e-4, 0.9, 5e-4, 1e-4
BLOCK = 32

KINDS = {
    "sgd": (),
    "sgd-rows": ("breadth_decay",),
    "sgd-columns": ("kernel_shape_decay",),
    "sgd-blocks": ("block_group_decay",),
    "sgd-rows-columns": ("breadth_decay", "kernel_shape_decay"),
    "adam": (),
}
"""The solver's decays for each kind of update."""

COLUMNS = [
    Column("update", 17, lambda row: row["what"], left=True),
    Column("threads", 7, lambda row: str(row["threads"])),
    Column("ours ms", 20, own_times),
    Column("GB/s", 5, lambda row: f"{row['gigabytes']:.0f}"),
    Column("torch fused", 11, times_of("torch fused")),
    Column("foreach", 8, times_of("torch foreach")),
    Column("ratio", 17, ratio),
    Column("of best", 7, best_ratio),
]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--model", default="alexnet", choices=sorted(p.name for p in MODELS.iterdir() if p.is_dir()),
                        metavar="MODEL", help="model whose parameters are updated; default alexnet")  # fmt: skip


def measure(options: argparse.Namespace) -> Iterator[Row]:
    torch = None if options.alone else import_peer("torch")
    net = open_net(options.model)
    for threads in options.threads:
        use_threads(threads, torch)
        for kind in options.kinds:
            ways: dict[str, Callable[[], object]] = {OURS: own_way(net, kind)}
            if torch is not None:
                ways |= torch_ways(net, kind, torch)
            row = compare(ways, options.seconds, threads=threads, rounds=options.rounds)
            count = sum(param.blob.count for param in net.learnable)
            moved = 4 * count * (7 if kind == "adam" else 5)
            row |= {"part": "update", "parameters": count, "gigabytes": moved / row["times"][OURS]["median"] / 1e6}
            yield {"what": kind, "threads": threads} | row


def open_net(model: str) -> Net:
    """The model's parameters, every weight blob under all group penalties; random gradients."""
    definition = prototxt.read_net(str(MODELS / model / "deploy.prototxt"))
    sizes = {
        layer.name: _matrix(layer.blobs[0].shape) for layer in Net(definition, phase=pb.TEST).layers if layer.blobs
    }
    message = pb.NetParameter()
    message.CopyFrom(definition.message)
    for layer in message.layer:
        if layer.name in sizes:
            rows, columns = sizes[layer.name]
            spec = layer.param[0] if layer.param else layer.param.add()
            spec.breadth_decay_mult = spec.kernel_shape_decay_mult = 1
            del spec.block_group_lasso[:]
            spec.block_group_lasso.add(ydimen=math.gcd(rows, BLOCK), xdimen=math.gcd(columns, BLOCK))
    net = Net(with_inputs(definition.with_message(message), {}), phase=pb.TRAIN, seed=1)
    fill_parameters(net)
    random = np.random.default_rng(1)
    for param in net.learnable:
        param.blob.diff[...] = 1e-3 * random.standard_normal(param.blob.shape, np.float32)
    return net


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def own_way(net: Net, kind: str) -> Callable[[], object]:
    settings: dict[str, Any] = {"type": "Adam" if kind == "adam" else "SGD", "momentum": MOMENTUM}
    settings |= {"weight_decay": DECAY} | dict.fromkeys(KINDS[kind], STRENGTH)
    definition = Definition(pb.SolverParameter(**settings))
    updates = make_updates(net.learnable, definition)
    steps = steps_of(updates, penalize(updates, net, definition))

    def run() -> None:
        for step in steps:
            step(0, RATE, 1.0)

    return run


def torch_ways(net: Net, kind: str, torch: Any) -> dict[str, Callable[[], object]]:
    parameters = []
    for param in net.learnable:
        parameters.append(torch.nn.Parameter(torch.from_numpy(param.blob.data.copy())))
        parameters[-1].grad = torch.from_numpy(param.blob.diff.copy())
    ways = {}
    for name in ("fused", "foreach"):
        if kind == "adam":
            optimiser = torch.optim.Adam(parameters, RATE, weight_decay=DECAY, **{name: True})
        else:
            optimiser = torch.optim.SGD(parameters, RATE, MOMENTUM, weight_decay=DECAY, **{name: True})
        ways[f"torch {name}"] = optimiser.step
    return ways
