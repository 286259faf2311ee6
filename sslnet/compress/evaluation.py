"""How well a net does on its test data."""

from __future__ import annotations

from dataclasses import dataclass

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.input_layers import is_source
from sslnet.net.net import Net
from sslnet.net.weights import WeightSource, copy_all_weights
from sslnet.prototxt import Definition
from sslnet.solver.solver_definition import find_nets, net_state

BATCHES = 50
"""Batches of a test where the data do not tell how many records there are."""


@dataclass(frozen=True)
class Score:
    """How well a net does on its test data.

    error  share of the images that its main Accuracy layer counts as wrong; None where there is none
    loss   mean over the batches; None where the phase has no loss
    """

    error: float | None
    loss: float | None


@dataclass(frozen=True)
class Trial:
    """Which net is tested, and how: the definition, its state, batches (None: all test data once)."""

    definition: Definition
    level: int
    stages: tuple[str, ...]
    batches: int | None
    seed: int

    def net(self, weights: WeightSource, definition: Definition | None = None) -> Net:
        """The net in phase TEST, or another one in its place, its parameters all from ``weights``."""
        source = definition or self.definition
        net = Net(source, phase=pb.TEST, level=self.level, stages=self.stages, seed=self.seed, lean=True)
        copy_all_weights(net.params, weights)
        return net

    def check(self) -> None:
        """raises UsageError, before anything is trained, where there is nothing to test on or nothing to compare by"""
        where = self.definition.path or f'the net "{self.definition.message.name}"'
        hint = "give the net with the data layers of both phases, train_test.prototxt or train_val.prototxt"
        state = PhaseState(pb.TEST, self.level, self.stages)
        made_by_layers = any(is_source(layer.param) for layer in filter_layers(self.definition, state))
        if not made_by_layers and not self.definition.message.input:
            raise UsageError(f"{where} has no test data", hint=hint)
        net = Net(self.definition, phase=pb.TEST, level=self.level, stages=self.stages, seed=self.seed, lean=True)
        if net.inputs:
            raise UsageError(f"{where} has no test data: no data layer fills {', '.join(net.inputs)}", hint=hint)
        if _main_accuracy(net) is None and not net.loss_weights:
            raise UsageError(f"{where} has neither an Accuracy nor a loss in phase TEST: nets cannot be compared")

    def score(self, weights: WeightSource, definition: Definition | None = None) -> Score:
        """The same batches for every net that is compared: all start with the first record."""
        net = self.net(weights, definition)
        output = _main_accuracy(net)
        batches = self.batches or epoch_batches(net) or BATCHES
        right = loss = 0.0
        for _ in range(batches):
            outputs = net.forward()
            loss += net.loss
            right += float(outputs[output].reshape(-1)[0]) if output is not None else 0.0
        return Score(1 - right / batches if output is not None else None, loss / batches if net.loss_weights else None)


def find_trial(solver: Definition, seed: int) -> Trial:
    """The first test net of a solver; the net that it trains, in phase TEST, where it names none."""
    train, tests = find_nets(solver)
    param = solver.message
    said = param.test_state[0] if tests and param.test_state else pb.NetState()
    state = net_state(tests[0] if tests else train, pb.TEST, said)
    batches = param.test_iter[0] if tests and param.test_iter else None
    return Trial(tests[0] if tests else train, state["level"], state["stages"], batches, seed)


def epoch_batches(net: Net) -> int | None:
    """Batches that hold all records of the net's data once; None where the data do not tell their number.

    Rounded down when the last batch would run over into the first records: those would count twice.
    """
    batches = [layer.epoch_batches() for layer in net.layers if hasattr(layer, "epoch_batches")]
    known = [number for number in batches if number]
    return max(known) if known else None


def _main_accuracy(net: Net) -> str | None:
    """The output of the last Accuracy layer, which heads on the way stand before; of those with top_k 1 if there are any."""
    found = [
        (layer.param.accuracy_param.top_k == 1, names[0])
        for layer, names in zip(net.layers, net.top_names)
        if layer.TYPE == "Accuracy" and names[0] in net.outputs
    ]
    best = [name for first, name in found if first] or [name for _, name in found]
    return best[-1] if best else None
