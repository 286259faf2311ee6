"""Training: a whole iteration (forward, backward, update) of the models, against the same net in torch."""

from __future__ import annotations

import argparse
import copy
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import layerwise
from benchmarks.machine import import_peer, use_threads
from benchmarks.tables import COMMON, Column, Row
from benchmarks.turns import OURS, summary, take_turns
from benchmarks.workloads import WORKLOADS, Workload, open_net
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net
from sslnet.solver.solver import Solver

HELP = "A training iteration of whole nets: forward, backward, update."
SECONDS = 3.0
COLUMNS: list[Column] = COMMON
DEFAULT = [name for name in WORKLOADS if name != "caffenet-b32"]
MOMENTUM, DECAY, RATE = 0.9, 5e-4, 1e-5
SGD_KINDS = ("fused", "foreach")
TOLERANCE = 1e-4
"""The largest difference of both losses, relative to their size."""
GRADIENT_TOLERANCE = 5e-2
"""The gradients: the pooling of nearly equal maxima may choose another one when a sum is rounded otherwise."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nets",
        nargs="+",
        choices=WORKLOADS,
        default=DEFAULT,
        metavar="NET",
        help=f"{', '.join(WORKLOADS)}; default: all but caffenet-b32, which is AlexNet with two layers swapped",
    )
    parser.add_argument(
        "--layers", action="store_true", help="also compare each layer, forward and backward, with torch's"
    )


def closing(rows: list[Row]) -> str:
    """The summary of all rows."""
    return layerwise.losses(rows)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    torch = None if options.alone else import_peer("torch")
    for name in options.nets:
        workload = WORKLOADS[name]
        checked = torch is None
        for threads in options.threads:
            use_threads(threads, torch)
            if not checked:
                check(workload, torch)
                checked = True
            yield from _measure(workload, threads, torch, options)
            gc.collect()


def _measure(workload: Workload, threads: int, torch: Any, options: argparse.Namespace) -> Iterator[Row]:
    key = {"what": workload.name, "threads": threads}
    net = open_net(workload.model, workload.batch, pb.TRAIN, lean=True)
    solver = make_solver(net)
    contestants: dict[str, Callable[[], object]] = {OURS: lambda: solver.step(1)}
    trainers: dict[str, Any] = {}
    if torch is not None:
        trainers = torch_trainers(net, torch)
        contestants |= {trainer: trainers[trainer].step for trainer in trainers}
    times = take_turns(contestants, options.seconds, threads=threads, rounds=options.rounds)
    yield key | {"part": "iteration", "must": workload.must, "aim": workload.aim} | summary(times)
    if options.layers:
        for row in layerwise.measure(solver, trainers, threads, options.rounds):
            yield key | row


def make_solver(net: Net) -> Solver:
    """SGD with momentum and weight decay, with a rate so small that random labels cause no divergence."""
    settings = {"base_lr": RATE, "lr_policy": "fixed", "momentum": MOMENTUM, "weight_decay": DECAY}
    return Solver(pb.SolverParameter(**settings, max_iter=1 << 30), net=net)


# -- torch ---------------------------------------------------------------------------------------------------------------


def torch_trainers(net: Net, torch: Any) -> dict[str, Any]:
    """The two memory layouts of torch, by name."""
    from benchmarks.torch_peer import make_peer

    peer = make_peer(net)
    formats = {"torch": torch.contiguous_format, "channels_last": torch.channels_last}
    return {
        name: TorchTrainer(copy.deepcopy(peer).to(memory_format=layout), tensors_of(net, layout, torch), torch)
        for name, layout in formats.items()
    }


class TorchTrainer:
    """A peer and its optimiser, on the data that the net holds."""

    def __init__(self, peer: Any, inputs: dict[str, Any], torch: Any, kinds: tuple[str, ...] = SGD_KINDS) -> None:
        self.torch, self.peer, self.inputs = torch, peer, inputs
        self.optimiser = self._optimiser(kinds)

    def forward_backward(self) -> Any:
        loss = self.peer.loss(self.peer(self.inputs))
        loss.backward()
        return loss

    def step(self) -> None:
        self.optimiser.zero_grad()
        self.forward_backward()
        self.optimiser.step()

    def _optimiser(self, kinds: tuple[str, ...]) -> Any:
        """torch's own SGD, in its fastest variant."""
        self.forward_backward()
        made = {}
        for kind in kinds:
            params = [param for param in self.peer.parameters() if param.requires_grad]
            sgd = self.torch.optim.SGD(params, RATE, MOMENTUM, weight_decay=DECAY, **{kind: True})
            lengths = []
            for _ in range(4 if len(kinds) > 1 else 1):
                start = time.perf_counter()
                sgd.step()
                lengths.append(time.perf_counter() - start)
            made[min(lengths)] = sgd
        return made[min(made)]


def tensors_of(net: Net, layout: Any, torch: Any) -> dict[str, Any]:
    """The net's inputs as tensors of their own; labels as whole numbers."""
    tensors = {name: torch.from_numpy(net.blobs[name].data.copy()) for name in net.inputs}
    return {
        name: tensor.long() if name == "label" else tensor.to(memory_format=layout) for name, tensor in tensors.items()
    }


# -- the same net? -------------------------------------------------------------------------------------------------------


def check(workload: Workload, torch: Any) -> None:
    """Ours and torch's must be one function: equal loss and gradients, dropout left out of both.

    raises ArithmeticError that names the first blob which differs
    """
    from benchmarks.torch_peer import make_peer

    net = open_net(workload.model, workload.batch, pb.TRAIN, dropout=False)
    peer = make_peer(net)
    inputs = tensors_of(net, torch.contiguous_format, torch)
    net.clear_param_diffs()
    net.forward_backward()
    loss = peer.loss(peer(inputs))
    loss.backward()
    _must_agree(workload.name, "loss", np.array(net.loss), loss.detach().numpy(), TOLERANCE)
    for name, module in _weighted(peer):
        _must_agree(
            workload.name,
            f"gradient of {name}'s weights",
            net.layer_dict[name].blobs[0].diff,
            module.weight.grad.numpy(),
            GRADIENT_TOLERANCE,
        )


def _weighted(peer: Any) -> Iterator[tuple[str, Any]]:
    """The convolutions and fully connected layers. Not the scales behind a BatchNorm: the next one makes the net all but
    blind to them, and what their gradients are is mostly rounding."""
    for part in peer.parts:
        modules = list(part.module.modules()) if hasattr(part.module, "modules") else []
        if modules and hasattr(modules[-1], "weight") and modules[-1].weight.dim() > 1:
            yield part.layers[0], modules[-1]


def _must_agree(net: str, what: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    error = float(np.linalg.norm(ours - theirs) / max(1e-12, np.linalg.norm(theirs)))
    if not error < tolerance:
        raise ArithmeticError(f"{net}: the {what} of ours and torch's differ by {error:.2g} of its size")
