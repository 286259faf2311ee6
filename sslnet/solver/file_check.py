"""Checks files as they are: a net, a solver or weights, without running or training anything."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, SslnetError, WeightsError
from sslnet.files import open_regular, resolve
from sslnet.net.graph import PhaseState
from sslnet.net.shape_check import NetCheck, check_net
from sslnet.net.weights import shape_problems, stored_weights
from sslnet.prototxt import Definition
from sslnet.solver import lr_policies, solver_definition
from sslnet.solver.updates import update_type

WEIGHTS = (".caffemodel", ".h5", ".hdf5")
NO_BLOBS = "no layer above it makes any blob"
_NETS = ("net", "train_net", "test_net")


@dataclass
class FileCheck:
    """What the check of one file found.

    kind      "net", "solver" or "weights"
    problems  what stops it, in the order of the file
    notes     what was assumed, what is ignored, and what could not be checked
    layers    of a net: phase -> number of layers that run
    shapes    of a net: phase -> blob -> shape
    params    of a net, and of weights: layer -> shapes of its parameter blobs
    """

    path: str
    kind: str
    problems: list[SslnetError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    layers: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    params: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether nothing stops the file."""
        return not self.problems


def check_files(
    paths: Sequence[str | os.PathLike[str]], shapes: Mapping[str, Sequence[int]] | None = None
) -> list[FileCheck]:
    """Checks files, in their order; weights are compared with each net among them.

    shapes  blob that a data layer makes -> its shape, for those that are not to be assumed
    """
    checks = [check_file(path, shapes or {}) for path in paths]
    nets = [check for check in checks if check.kind == "net" and check.params]
    for check in checks:
        if check.kind == "weights" and check.accepted:
            for net in nets:
                check.problems += [
                    WeightsError(f"{error.message} ({net.path})", path=check.path, layer=error.layer, hint=error.hint)
                    for error in shape_problems(check.params, net.params, check.path)
                ]
                missing = [name for name in net.params if name not in check.params]
                if missing:
                    check.notes.append(f"no weights for {len(missing)} layers of {net.path}: {', '.join(missing[:5])}")
    return checks


def check_file(path: str | os.PathLike[str], shapes: Mapping[str, Sequence[int]]) -> FileCheck:
    """Checks one file; what is wrong with it is in the result, not raised."""
    name = os.fspath(path)
    kind = kind_of(name)
    check = FileCheck(name, kind)
    try:
        if kind == "weights":
            arrays = stored_weights(name).arrays
            check.params = {layer: [array.shape for array in blobs] for layer, blobs in arrays.items()}
        elif kind == "solver":
            _check_solver(prototxt.read_solver(name, collect=True), shapes, check)
        else:
            _check_net(prototxt.read_net(name, collect=True), shapes, check)
    except SslnetError as error:
        check.problems += getattr(error, "errors", [error])
    return check


def kind_of(path: str) -> str:
    """Whether a file is a "net", a "solver" or "weights": by its name, or what is in it."""
    if path.endswith(WEIGHTS):
        return "weights"
    try:
        with open_regular(path) as file:
            start = file.read(1 << 20)
    except (SslnetError, OSError):
        return "net"
    if b"\0" in start[:8192]:
        return "weights"
    text = re.sub(r"#.*|\{[^{}]*\}", "", start.decode("utf-8", "replace"))
    if re.search(r"^\s*(layers?|input|input_dim|input_shape)\s*[:{]", text, re.MULTILINE):
        return "net"
    return "solver" if re.search(r"\b(base_lr|lr_policy|train_net|test_iter|max_iter)\s*:", text) else "net"


def _check_net(definition: Definition, shapes: Mapping[str, Sequence[int]], check: FileCheck) -> None:
    check.notes += [note.message for note in definition.notes]
    seen: set[tuple[object, ...]] = set()
    found = [check_net(definition, PhaseState(phase), shapes) for phase in (pb.TRAIN, pb.TEST)]
    complete = [each for each in found if not any(NO_BLOBS in problem.hint for problem in each.problems)]
    for each in found:
        if each not in complete and complete:  # the file is of the other phase
            check.notes.append(f"no layer provides data in phase {pb.Phase.Name(each.phase)}: it is not checked")
        else:
            _add(check, each, seen)
    stages = sorted({stage for layer in definition.message.layer for rule in layer.include for stage in rule.stage})
    if stages:
        check.notes.append(f"layers of the stages {', '.join(stages)} are not checked")


def _add(check: FileCheck, found: NetCheck, seen: set[tuple[object, ...]]) -> None:
    """Adds what was found in one phase; what is the same in both phases stands there once."""
    phase = pb.Phase.Name(found.phase)
    empty = any(problem.message.startswith("the net has no layer in phase") for problem in found.problems)
    if empty and (check.layers or phase == "TRAIN"):
        check.notes.append(f"no layer in phase {phase}")
        return
    check.layers[phase], check.shapes[phase] = found.layers, found.shapes
    check.params |= found.params
    for problem in found.problems:
        key = (problem.message, problem.line, problem.column, problem.layer)
        if key not in seen:
            seen.add(key)
            check.problems.append(problem)
    check.notes += [note for note in found.notes if note not in check.notes]


def _check_solver(definition: Definition, shapes: Mapping[str, Sequence[int]], check: FileCheck) -> None:
    check.notes += [note.message for note in definition.notes]
    check.problems += definition.problems
    definition = _with_rate(definition, check)
    for test in (solver_definition.check, lr_policies.check, update_type):
        try:
            test(definition)
        except DefinitionError as error:
            errors = getattr(error, "errors", [error])
            check.problems += [e for e in errors if str(e) not in map(str, check.problems)]
    for field_name in _NETS:
        value = getattr(definition.message, field_name)
        for name in dict.fromkeys([value] if isinstance(value, str) else value):
            if not name:
                continue
            try:
                path = str(resolve(name, definition.path, error=DefinitionError))
            except DefinitionError:
                check.notes.append(f"{name} is not here: the net is not checked")
                continue
            net = check_file(path, shapes)
            check.problems += net.problems
            check.notes += [f"{name}: {note}" for note in net.notes]


def _with_rate(definition: Definition, check: FileCheck) -> Definition:
    """The solver with a learning rate: one that lacks it is a template, which a script completes, and is checked as such."""
    message = definition.message
    if message.HasField("base_lr") or message.stagelr:
        return definition
    check.notes.append(
        "a template: there is no base_lr, so sslnet train needs --set base_lr=RATE; checked as with base_lr=0.01"
    )
    complete = pb.SolverParameter()
    complete.CopyFrom(message)
    complete.base_lr = 0.01
    return definition.with_message(complete)
