"""Checks a solver's definition before training, and builds the nets that it names in their states."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, ErrorList, SslnetError
from sslnet.files import resolve
from sslnet.net.average_precision import VERSIONS
from sslnet.net.net import Net
from sslnet.prototxt import Definition, Diagnostic
from sslnet.solver import lr_policies


def read_definition(source: Any) -> Definition:
    """A solver's definition, from a Definition, a pb.SolverParameter or the path of a prototxt."""
    if isinstance(source, Definition):
        return source
    if isinstance(source, pb.SolverParameter):
        return Definition(source)
    return prototxt.read_solver(os.fspath(source))


EVAL_TYPES = ("classification", "detection", "segmentation")
"""The values of eval_type; which layers a net has decides what a test computes."""
LEAST = {"iter_size": 1, "max_iter": 0, "average_loss": 1, "snapshot": 0, "display": 0, "max_data_errors": 0}
"""The smallest allowed value of each integer field."""


def check(definition: Definition, *, prunes: bool = False) -> None:
    """Checks the fields of a solver that need no net. raises DefinitionError

    prunes  whether something does what prune_param asks for
    """
    param = definition.message
    prototxt.check_finite(definition, apart=("net_param", "train_net_param", "test_net_param"))
    if param.HasField("prune_param") and not prunes:
        raise DefinitionError(
            "prune_param has no effect here",
            span=definition.span("prune_param"),
            path=definition.path,
            hint="sslnet train prunes; in Python, Solver(source, steering=sslnet.pruning_cycles(source))",
        )
    lr_policies.check(definition)
    for name, least in LEAST.items():
        if getattr(param, name) < least:
            message = f"{name} must be {least} or more, not {getattr(param, name)}"
            words = definition.overrides.get((name,), "")
            span = None if words else definition.span(name, value=True)
            raise DefinitionError(message, span=span, path=definition.path, hint=words and f"set by {words}")
    if not 0 <= param.ema_decay < 1:
        span = definition.span("ema_decay", value=True)
        message = f"ema_decay must be at least 0 and below 1, not {param.ema_decay:g}"
        raise DefinitionError(message, span=span, path=definition.path, hint="0.999 is usual")
    for name, known in (("ap_version", VERSIONS), ("eval_type", EVAL_TYPES)):
        if getattr(param, name) not in known:
            message = f'{name} must be one of {", ".join(known)}, not "{getattr(param, name)}"'
            raise DefinitionError(message, span=definition.span(name, value=True), path=definition.path)
    if "\0" in param.snapshot_prefix:
        span = definition.span("snapshot_prefix", value=True)
        raise DefinitionError("snapshot_prefix must not hold a NUL character", span=span, path=definition.path)
    for index, count in enumerate(param.test_iter):
        if count < 0:
            span = definition.span("test_iter", index, value=True)
            raise DefinitionError(f"test_iter must be 0 or more, not {count}", span=span, path=definition.path)


def check_aims(definition: Definition, net: Net) -> None:
    """Raises DefinitionError if training would change nothing, for there is no max_iter or no loss in the net, or if the
    learning rate follows tests and there are none."""
    if not definition.message.HasField("max_iter"):
        raise DefinitionError(
            "the solver has no max_iter: it would train for 0 iterations",
            path=definition.path,
            hint="say how many to train for, as max_iter: 10000",
        )
    param = definition.message
    if param.lr_policy == "stepearly" and (param.test_interval <= 0 or not any(param.test_iter)):
        raise DefinitionError(
            'lr_policy "stepearly" follows the scores of tests, and there are none',
            span=definition.span("lr_policy", value=True),
            path=definition.path,
            hint="give test_interval and test_iter",
        )
    if not net.loss_weights:
        raise DefinitionError(
            "the net has no loss in phase TRAIN: it would learn nothing",
            path=net.definition.path,
            hint="SoftmaxWithLoss, EuclideanLoss and the like are losses, and so is any top with a loss_weight",
        )


def find_nets(solver: Definition) -> tuple[Definition, list[Definition]]:
    """Finds the definitions of the train net and the test nets, in Caffe's order: test_net_param, test_net, then net or
    net_param for the remaining values of test_iter."""
    param = solver.message
    given = [name for name in ("net", "net_param", "train_net", "train_net_param") if param.HasField(name)]
    if len(given) != 1:
        what = (
            f"the net to train is given {len(given)} times ({', '.join(given)})"
            if given
            else "there is no net to train"
        )
        span = solver.span(given[1]) if given else None
        raise DefinitionError(
            what, span=span, path=solver.path, hint="give one of net, net_param, train_net, train_net_param"
        )
    train = _part(solver, given[0])
    test_nets = [solver.part("test_net_param", index) for index in range(len(param.test_net_param))]
    test_nets += [_part(solver, "test_net", index) for index in range(len(param.test_net))]
    if given[0] in ("net", "net_param"):
        test_nets += [train] * (len(param.test_iter) - len(test_nets))
    return train, test_nets


def _part(solver: Definition, field: str, *index: int) -> Definition:
    """The definition of a net, from a field of the solver or from the file that the field names."""
    if field.endswith("_param"):
        return solver.part(field)
    name = getattr(solver.message, field)
    name = name[index[0]] if index else name
    span = solver.span(field, *index, value=True)
    return prototxt.read_net(str(resolve(name, solver.path, error=DefinitionError, span=span)), collect=True)


def make_nets(
    solver: Definition, warn: Callable[[Diagnostic], None], settings: dict[str, Any]
) -> tuple[Net, list[Net]]:
    """Builds the train net, and the test nets, which share its parameters.

    warn      called with each likely mistake in the definitions
    settings  keyword arguments of all nets (``Net``)
    raises    DefinitionError, or ErrorList, for errors in the definitions
    """
    train, tests = find_nets(solver)
    if not train.problems:  # otherwise the net raises them, with what else is wrong with it
        _lint(solver, train, warn)
    net = Net(train, **net_state(train, pb.TRAIN, solver.message.train_state), **settings)
    states = list(solver.message.test_state) or [pb.NetState()] * len(tests)
    return net, [Net(test, **net_state(test, pb.TEST, s), share=net, **settings) for test, s in zip(tests, states)]


def _lint(solver: Definition, train: Definition, warn: Callable[[Diagnostic], None]) -> None:
    """Raises the errors that the linter finds; passes its warnings to ``warn``."""
    notes = prototxt.lint_solver(solver, train)
    errors: list[SslnetError] = [note.error for note in notes if note.level == "error"]
    if errors:
        raise errors[0] if len(errors) == 1 else ErrorList(errors)
    for note in notes:
        warn(note)


def net_state(net: Definition, phase: int, state: Any) -> dict[str, Any]:
    """Phase, level and stages of a net: the phase, overridden by the net's state, then by the solver's."""
    merged = pb.NetState(phase=pb.Phase.Name(phase))
    merged.MergeFrom(net.message.state)
    merged.MergeFrom(state)
    return {"phase": merged.phase, "level": merged.level, "stages": tuple(merged.stage)}


def named_weights(solver: Definition) -> list[str]:
    """The .caffemodel files that a solver starts from."""
    return [name.strip() for names in solver.message.weights for name in names.split(",") if name.strip()]
