"""Evaluation: error and loss of a net on its test data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.input_layers import is_source
from sslnet.net.net import Net
from sslnet.net.weights import WeightSource, copy_all_weights
from sslnet.prototxt import Definition
from sslnet.solver.solver_definition import find_nets, net_state

BATCHES = 50
"""Number of test batches if the number of records in the data is unknown."""


@dataclass(frozen=True)
class Score:
    """Error and loss of a net on its test data.

    error  fraction of images misclassified according to the main Accuracy layer; None without such a layer
    loss   mean over the batches; None if the phase has no loss
    """

    error: float | None
    loss: float | None


@dataclass(frozen=True)
class Trial:
    """A test to run: the net's definition, its state, number of batches (None: all test data once)."""

    definition: Definition
    level: int
    stages: tuple[str, ...]
    batches: int | None
    seed: int

    def net(self, weights: WeightSource, definition: Definition | None = None) -> Net:
        """Builds the net in phase TEST, or that of ``definition``, with all its parameters from ``weights``."""
        source = definition or self.definition
        net = Net(source, phase=pb.TEST, level=self.level, stages=self.stages, seed=self.seed, lean=True)
        copy_all_weights(net.params, weights)
        return net

    def check(self, labels: bool = True) -> None:
        """Raises UsageError if the net has no test data, or neither accuracy nor loss; call it before training.

        labels  whether it needs an accuracy or a loss
        """
        where = self.definition.path or f'the net "{self.definition.message.name}"'
        hint = "give the net with the data layers of both phases, train_test.prototxt or train_val.prototxt"
        state = PhaseState(pb.TEST, self.level, self.stages)
        made_by_layers = any(is_source(layer.param) for layer in filter_layers(self.definition, state))
        if not made_by_layers and not self.definition.message.input:
            raise UsageError(f"{where} has no test data", hint=hint)
        net = Net(self.definition, phase=pb.TEST, level=self.level, stages=self.stages, seed=self.seed, lean=True)
        if net.inputs:
            raise UsageError(f"{where} has no test data: no data layer fills {', '.join(net.inputs)}", hint=hint)
        if labels and _main_accuracy(net) is None and not net.loss_weights:
            raise UsageError(f"{where} has neither an Accuracy nor a loss in phase TEST: nets cannot be compared")

    def score(self, weights: WeightSource, definition: Definition | None = None) -> Score:
        """Tests a net. Every call starts at the first record, so that all nets are compared on the same batches."""
        net = self.net(weights, definition)
        output = _main_accuracy(net)
        batches = self.batches or epoch_batches(net) or BATCHES
        right = loss = 0.0
        for _ in range(batches):
            outputs = net.forward()
            loss += net.loss
            right += float(outputs[output].reshape(-1)[0]) if output is not None else 0.0
        return Score(1 - right / batches if output is not None else None, loss / batches if net.loss_weights else None)

    def difference(self, weights: WeightSource, others: WeightSource, definition: Definition) -> float:
        """How much the outputs of another net differ from those of this one on the same batches: root mean square of the
        difference, relative to that of this net's outputs less their mean.

        weights     of this net;  others, definition: of the other
        """
        one, two = self.net(weights), self.net(others, definition)
        given = {name for layer, names in zip(one.layers, one.top_names) if layer.IS_SOURCE for name in names}
        names = [name for name in one.outputs if name in two.outputs and name not in given]
        if not names:
            raise UsageError("the nets have no output in common", hint=f"one has {', '.join(one.outputs)}")
        error = size = 0.0
        for _ in range(self.batches or epoch_batches(one) or BATCHES):
            ours, theirs = one.forward(), two.forward()
            for name in names:
                a, b = (np.asarray(side[name], np.float64) for side in (ours, theirs))
                error += float(((a - b) ** 2).sum())
                size += float(((a - a.mean(axis=0)) ** 2).sum())
        return math.sqrt(error / size) if size else math.inf if error else 0.0


def find_trial(solver: Definition, seed: int) -> Trial:
    """The trial of a solver's first test net; if it has none, of its train net in phase TEST."""
    train, tests = find_nets(solver)
    param = solver.message
    said = param.test_state[0] if tests and param.test_state else pb.NetState()
    state = net_state(tests[0] if tests else train, pb.TEST, said)
    batches = (param.test_iter[0] or None) if tests and param.test_iter else None
    return Trial(tests[0] if tests else train, state["level"], state["stages"], batches, seed)


def epoch_batches(net: Net) -> int | None:
    """Number of batches that contain all records of the net's data once; None if the number of records is unknown.

    Rounded down if the last batch would wrap around to the first records, which would then count twice.
    """
    batches = [layer.epoch_batches() for layer in net.layers if hasattr(layer, "epoch_batches")]
    known = [number for number in batches if number]
    return max(known) if known else None


def _main_accuracy(net: Net) -> str | None:
    """Output name of the last Accuracy layer, with top_k 1 if there is one; auxiliary heads come before the main one."""
    found = [
        (layer.param.accuracy_param.top_k == 1, names[0])
        for layer, names in zip(net.layers, net.top_names)
        if layer.TYPE == "Accuracy" and names[0] in net.outputs
    ]
    best = [name for first, name in found if first] or [name for _, name in found]
    return best[-1] if best else None
