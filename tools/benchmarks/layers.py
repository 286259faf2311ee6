"""Single layers other than convolutions, forward and backward, against torch; on the sizes that they have in the models.

What stands together in nets is timed together (BatchNorm, Scale, ReLU). torch's backward runs through its graph, kept from
one forward pass; ours runs the steps of the net's plan.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.machine import import_peer, use_threads
from benchmarks.tables import Column, Row, best_ratio, own_times, ratio, times_of
from benchmarks.turns import OURS, compare
from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net

HELP = "Pooling, normalisation, activations, losses, fully connected and other layers."
SECONDS = 0.3
TOLERANCE = 1e-3

COLUMNS = [
    Column("layer", 24, lambda row: row["what"], left=True),
    Column("pass", 8, lambda row: row["part"], left=True),
    Column("threads", 7, lambda row: str(row["threads"])),
    Column("ours ms", 20, own_times),
    Column("GB/s", 5, lambda row: f"{row['gigabytes']:.0f}"),
    Column("torch", 8, times_of("torch")),
    Column("ch.last", 8, times_of("channels_last")),
    Column("ratio", 17, ratio),
    Column("of best", 7, best_ratio),
]


@dataclass(frozen=True)
class Case:
    """A case: layers, shapes of their bottoms, and the number of classes if the last bottom holds labels."""

    text: str
    shapes: tuple[tuple[int, ...], ...]
    classes: int = 0
    random: bool = False
    """Whether the layer draws random numbers, so that outputs are not compared."""


def _layer(type: str, body: str = "", bottom: str = "x0", top: str = "y") -> str:
    bottoms = " ".join(f'bottom: "{name}"' for name in bottom.split())
    return f'layer {{ name: "{type}" type: "{type}" {bottoms} top: "{top}" {body} }}\n'


def _pool(body: str) -> str:
    return _layer("Pooling", f"pooling_param {{ {body} }}")


def _inner(outputs: int) -> str:
    body = f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "gaussian" std: 0.01 }} }}'
    return _layer("InnerProduct", body)


_NORM = (
    _layer("BatchNorm")
    + _layer("Scale", "scale_param { bias_term: true bias_filler { type: 'constant' value: 0.5 } }", "y")
    + _layer("ReLU", bottom="y")
)
"""As in the models, where a plan gives the convolution below a blob of its own, so that BatchNorm is not in place."""
_LOSS = _layer("SoftmaxWithLoss", bottom="x0 x1")
_MAPS = ((64, 64, 28, 28),)
_LSTM = 'recurrent_param { num_output: 256 weight_filler { type: "uniform" min: -0.05 max: 0.05 } }'

CASES = {
    "pool-max-2x2/2": Case(_pool("pool: MAX kernel_size: 2 stride: 2"), ((64, 20, 24, 24),)),
    "pool-max-3x3/2": Case(_pool("pool: MAX kernel_size: 3 stride: 2"), ((16, 96, 55, 55),)),
    "pool-max-3x3/1": Case(_pool("pool: MAX kernel_size: 3 stride: 1 pad: 1"), ((8, 256, 28, 28),)),
    "pool-ave-3x3/2": Case(_pool("pool: AVE kernel_size: 3 stride: 2"), ((100, 32, 16, 16),)),
    "pool-ave-global": Case(_pool("pool: AVE global_pooling: true"), ((8, 1024, 7, 7),)),
    "lrn-across": Case(_layer("LRN", "lrn_param { local_size: 5 alpha: 1e-4 beta: 0.75 }"), ((16, 96, 55, 55),)),
    "lrn-within": Case(
        _layer("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 5e-5 beta: 0.75 }"),
        ((100, 32, 16, 16),),
    ),
    "batchnorm-relu-16x32x32": Case(_NORM, ((128, 16, 32, 32),)),
    "batchnorm-relu-64x8x8": Case(_NORM, ((128, 64, 8, 8),)),
    "batchnorm-relu-64x112x112": Case(_NORM, ((8, 64, 112, 112),)),
    "softmax-1000": Case(_layer("Softmax"), ((128, 1000),)),
    "softmax-loss-10": Case(_LOSS, ((64, 10), (64,)), classes=10),
    "softmax-loss-1000": Case(_LOSS, ((128, 1000), (128,)), classes=1000),
    "relu": Case(_layer("ReLU"), _MAPS),
    "sigmoid": Case(_layer("Sigmoid"), _MAPS),
    "tanh": Case(_layer("TanH"), _MAPS),
    "elu": Case(_layer("ELU"), _MAPS),
    "prelu": Case(_layer("PReLU"), _MAPS),
    "dropout": Case(_layer("Dropout"), ((128, 4096),), random=True),
    "eltwise-sum": Case(_layer("Eltwise", bottom="x0 x1"), ((128, 16, 32, 32),) * 2),
    "concat": Case(_layer("Concat", bottom="x0 x1 x2 x3"), tuple((8, c, 28, 28) for c in (64, 128, 32, 32))),
    "inner-product-b1": Case(_inner(4096), ((1, 4096),)),
    "inner-product-b16": Case(_inner(4096), ((16, 4096),)),
    "inner-product-b64": Case(_inner(4096), ((64, 4096),)),
    "inner-product-lenet": Case(_inner(500), ((64, 800),)),
    "lstm": Case(_layer("LSTM", _LSTM, "x0 x1"), ((20, 16, 128), (20, 16))),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layers", nargs="+", choices=CASES, default=list(CASES), metavar="LAYER", help=", ".join(CASES)
    )


def measure(options: argparse.Namespace) -> Iterator[Row]:
    torch = None if options.alone else import_peer("torch")
    for threads in options.threads:
        use_threads(threads, torch)
        for name in options.layers:
            case = CASES[name]
            net = open_net(case)
            ours = own_ways(net)
            theirs = torch_ways(name, case, net, torch) if torch else {}
            moved = sum(blob.nbytes for blob in {*net.blobs.values(), *(p.blob for p in net.learnable)})
            for what in ("forward", "backward"):
                ways = {OURS: ours[what]} | {layout: pair[what] for layout, pair in theirs.items()}
                row = compare(ways, options.seconds, threads=threads, rounds=options.rounds)
                row["gigabytes"] = moved / row["times"][OURS]["median"] / 1e6
                yield {"what": name, "part": what, "threads": threads} | row


def open_net(case: Case) -> Net:
    """The layers behind Input layers, random numbers in those; every bottom gets a gradient that can."""
    tops = "".join(f' top: "x{i}"' for i in range(len(case.shapes)))
    shapes = "".join(" shape {" + "".join(f" dim: {n}" for n in shape) + " }" for shape in case.shapes)
    inputs = f'layer {{ name: "in" type: "Input"{tops} input_param {{{shapes} }} }}\n'
    text = f"force_backward: true\n{inputs}{case.text}"
    net = Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=1)
    random = np.random.default_rng(1)
    for name, shape in zip(net.inputs, case.shapes):
        net.blobs[name].data[...] = random.standard_normal(shape, np.float32)
    if case.classes:
        net.blobs[net.inputs[-1]].data[...] = random.integers(0, case.classes, case.shapes[-1])
    if "LSTM" in case.text:  # one sequence from the first step to the last
        net.blobs["x1"].data[...] = 1
        net.blobs["x1"].data[0] = 0
    return net


def own_ways(net: Net) -> dict[str, Callable[[], object]]:
    """The steps that forward and backward run."""
    net.forward()
    steps = [step for step in net.plan(True).steps if not step.layer.IS_SOURCE]
    for name in net.outputs:
        shape = net.blobs[name].shape
        net.blobs[name].diff[...] = np.random.default_rng(2).standard_normal(shape, np.float32) if shape else 1
    if any(layer.IS_LOSS for layer in net.layers):
        net.blobs[net.outputs[0]].diff[...] = 1

    def forward() -> None:
        for step in steps:
            step.forward()

    def backward() -> None:
        for step in reversed(steps):
            step.backward()

    return {"forward": forward, "backward": backward}


def torch_ways(name: str, case: Case, net: Net, torch: Any) -> dict[str, dict[str, Callable[[], object]]]:
    """The same in torch's layouts: two for images, one for what has fewer axes.

    raises ArithmeticError when torch computes something else
    """
    from benchmarks.torch_peer import make_peer

    layouts = {"torch": torch.contiguous_format}
    if len(case.shapes[0]) == 4:
        layouts["channels_last"] = torch.channels_last
    ways = {}
    net = open_net(case)  # what works in place has changed its input
    for layout, format in layouts.items():
        peer = make_peer(net)
        inputs = {}
        for key in net.inputs:
            tensor = torch.from_numpy(net.blobs[key].data.copy())
            if case.classes and key == net.inputs[-1]:
                inputs[key] = tensor.long()
            else:
                inputs[key] = tensor.to(memory_format=format) if tensor.dim() == 4 else tensor
                inputs[key].requires_grad_("LSTM" not in case.text or key == "x0")
        ways[layout] = _ways(peer.to(memory_format=format), inputs, net.outputs[0], torch)
    if not case.random:
        _check(name, net, ways)
    return ways


def _ways(peer: Any, inputs: dict[str, Any], output: str, torch: Any) -> dict[str, Callable[[], Any]]:
    def forward() -> Any:
        return peer(inputs)[output]

    result = forward()
    wanted = [tensor for tensor in (*inputs.values(), *peer.parameters()) if tensor.requires_grad]
    diff = torch.ones_like(result) if result.dim() == 0 else torch.randn_like(result)
    return {
        "forward": forward,
        "backward": lambda: torch.autograd.grad(result, wanted, diff, retain_graph=True),
    }


def _check(name: str, net: Net, ways: dict[str, dict[str, Callable[[], Any]]]) -> None:
    net.forward()
    ours = net.blobs[net.outputs[0]].data
    for layout, pair in ways.items():
        theirs = pair["forward"]().detach().numpy().reshape(ours.shape)
        if not np.abs(ours - theirs).max() <= TOLERANCE * max(1.0, float(np.abs(ours).max())):
            raise ArithmeticError(f"{name}: ours and {layout} compute different things")
