"""Merges the separate train and test nets of a solver into one definition with both phases.

Layers that compute the same are written once, as in the train net; all others get a rule for their phase. A layer with
weights that differs in more than fillers, multipliers and rules is written in both versions, under one name.
"""

from __future__ import annotations

import copy
import difflib
import os

from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.rebase import relocate
from sslnet.errors import UsageError
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.prototxt import Definition, upgrade_net
from sslnet.prototxt.values import is_repeated
from sslnet.solver.solver_definition import find_nets, net_state

APART = ("train_net", "train_net_param", "test_net", "test_net_param")


def names_apart(solver: Definition) -> bool:
    """Whether a solver names separate nets for training and testing."""
    param = solver.message
    return any(getattr(param, name) if name.startswith("test") else param.HasField(name) for name in APART)


def merge_nets(solver: Definition) -> Definition:
    """The solver with its train net and first test net merged into one ``net_param``.

    raises UsageError if it has no test net
    """
    param = solver.message
    train, tests = find_nets(solver)
    if not tests:
        raise UsageError(
            f"{solver.path or 'the solver'} has no test data: it names no net to test", hint="add a test_net"
        )
    result = copy.deepcopy(param)
    for name in (*APART, "net", "net_param", "test_state", "train_state"):
        result.ClearField(name)
    del result.test_iter[1:]
    state = param.test_state[0] if param.test_state else pb.NetState()
    ours, theirs = _layers(train, pb.TRAIN, param.train_state, solver), _layers(tests[0], pb.TEST, state, solver)
    result.net_param.name = train.message.name
    result.net_param.layer.extend(_merged(ours, theirs))
    return solver.with_message(result)


def _layers(net: Definition, phase: int, said: pb.NetState, solver: Definition) -> list[pb.LayerParameter]:
    """The layers that run in a phase, without rules; file names are made relative to the solver's folder."""
    net = upgrade_net(net)
    message = copy.deepcopy(net.message)
    if net.path is not None and solver.path is not None:
        relocate(message, net.path, os.fspath(solver.path))
    state = net_state(net, phase, said)
    layers = [layer.param for layer in filter_layers(net.with_message(message), PhaseState(**state))]
    for layer in layers:
        layer.ClearField("include")
        layer.ClearField("exclude")
    return layers


def _merged(train: list[pb.LayerParameter], test: list[pb.LayerParameter]) -> list[pb.LayerParameter]:
    ours, theirs = ([_key(layer) for layer in layers] for layers in (train, test))
    result: list[pb.LayerParameter] = []
    for what, a, b, c, d in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if what == "equal":
            result += train[a:b]
            continue
        for layers, phase in ((train[a:b], pb.TRAIN), (test[c:d], pb.TEST)):
            for layer in layers:
                layer.include.add(phase=phase)
            result += layers
    return result


def _key(layer: pb.LayerParameter) -> bytes:
    """A key that is equal for layers that compute the same; it ignores fields that only matter for training."""
    bare = copy.deepcopy(layer)
    for name in ("param", "phase", "blobs"):
        bare.ClearField(name)
    for field, value in bare.ListFields():
        if field.message_type is not None and not is_repeated(field):
            for part, _ in value.ListFields():
                if part.message_type is not None and part.message_type.name == "FillerParameter":
                    value.ClearField(part.name)
    return bytes(bare.SerializeToString(deterministic=True))
