"""Finds settings of a solver and its net that have no effect or are mistakes, before training starts.

It reads only the texts; whether a tile divides its weight matrix is checked when shapes are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.errors import suggestion
from sslnet.prototxt.definition import Definition, Path
from sslnet.prototxt.diagnostic import Diagnostic


@dataclass(frozen=True)
class _Penalty:
    """A strength of the solver, and the field of a param that uses it."""

    decay: str
    mult: str
    advice: str

    def strength(self, spec: pb.ParamSpec) -> float:
        """The factor by which the param multiplies the strength; 0 if it does not use it."""
        if self.mult == "block_group_lasso":
            return max((block.block_decay_mult for block in spec.block_group_lasso), default=0)
        if self.mult == "group_lasso":
            return max((group.decay_mult for group in spec.group_lasso), default=0)
        return float(getattr(spec, self.mult))


_PENALTIES = (
    _Penalty("breadth_decay", "breadth_decay_mult", "set breadth_decay_mult: 1 in the params whose rows are groups"),
    _Penalty(
        "kernel_shape_decay",
        "kernel_shape_decay_mult",
        "set kernel_shape_decay_mult: 1 in the params whose columns are groups",
    ),
    _Penalty(
        "block_group_decay", "block_group_lasso", "add block_group_lasso { } to the params whose tiles are groups"
    ),
    _Penalty(
        "group_lasso_decay", "group_lasso", "add group_lasso { group: FILTER } to the params whose filters are groups"
    ),
)
_POLICIES = {
    "stepsize": ("step", "sigmoid"),
    "stepvalue": ("multistep",),
    "pct_start": ("onecycle",),
    "div_factor": ("onecycle",),
    "final_div_factor": ("onecycle",),
    "stepearly": ("stepearly",),
}


@dataclass(frozen=True)
class _Param:
    """A `param { }` of the net: its message and its path."""

    spec: pb.ParamSpec
    layer: pb.LayerParameter
    path: Path


def lint_solver(solver: Definition, net: Definition) -> list[Diagnostic]:
    """All findings about a solver and the net that it trains, in the order of the checks.

    solver   of a SolverParameter; net: of a NetParameter, with the layers of all phases
    """
    params = list(_params(net))
    return [
        *_rates_out_of_range(solver),
        *_mults_out_of_range(net, params),
        *_decays_without_mults(solver, params),
        *_mults_without_decays(solver, net, params),
        *_penalties_of_frozen_params(solver, net, params),
        *_fields_of_groups_that_do_nothing(solver, net, params),
        *_weight_decay_of_nothing(solver, net),
        *_regularization_types(solver, net, params),
        *_steps_of_another_policy(solver),
        *_tests(solver),
        *_bound_of_nothing(solver),
    ]


def _rates_out_of_range(solver: Definition) -> Iterator[Diagnostic]:
    for name in ("base_lr", "weight_decay", *(penalty.decay for penalty in _PENALTIES)):
        value = getattr(solver.message, name)
        if not _is_strength(value):
            yield _note(
                "error", f"{name} must be a finite number, 0 or above, not {value:g}", solver, (name,), value=True
            )


def _mults_out_of_range(net: Definition, params: list[_Param]) -> Iterator[Diagnostic]:
    for param in params:
        fields: list[tuple[str | int, ...]] = [("decay_mult",), ("breadth_decay_mult",), ("kernel_shape_decay_mult",)]
        values = [getattr(param.spec, str(field[0])) for field in fields]
        for block_field, mult in (("block_group_lasso", "block_decay_mult"), ("group_lasso", "decay_mult")):
            for index, block in enumerate(getattr(param.spec, block_field)):
                fields.append((block_field, index, mult))
                values.append(getattr(block, mult))
                for name in ("xdimen", "ydimen"):
                    if getattr(block, name) == 0:
                        path = (*param.path, block_field, index, name)
                        message = f"{name} must be 1 or above, not 0"
                        yield _note("error", message, net, path, value=True, layer=param.layer)
        for field, value in zip(fields, values, strict=True):
            if not _is_strength(value):
                message = f"{field[-1]} must be a finite number, 0 or above, not {value:g}"
                yield _note("error", message, net, (*param.path, *field), value=True, layer=param.layer)


def _decays_without_mults(solver: Definition, params: list[_Param]) -> Iterator[Diagnostic]:
    for penalty in _PENALTIES:
        decay = getattr(solver.message, penalty.decay)
        if decay > 0 and not any(penalty.strength(param.spec) for param in params):
            message = f"{penalty.decay} is {decay:g}, but does nothing: no param of the net has a {penalty.mult}"
            yield _note("error", message, solver, (penalty.decay,), hint=penalty.advice)


def _mults_without_decays(solver: Definition, net: Definition, params: list[_Param]) -> Iterator[Diagnostic]:
    for penalty in _PENALTIES:
        users = [param for param in params if penalty.strength(param.spec)]
        if users and not solver.message.HasField(penalty.decay):  # a 0 that is written is meant
            others = f" here and in {len(users) - 1} more" if len(users) > 1 else ""
            message = f"{penalty.mult} does nothing{others}: the solver has no {penalty.decay}"
            yield _note("warning", message, net, (*users[0].path, penalty.mult), layer=users[0].layer)


def _penalties_of_frozen_params(solver: Definition, net: Definition, params: list[_Param]) -> Iterator[Diagnostic]:
    for penalty in _PENALTIES:
        for param in params:
            if param.spec.lr_mult == 0 and penalty.strength(param.spec) and getattr(solver.message, penalty.decay):
                message = f"{penalty.mult} does nothing: lr_mult is 0, the param is not trained"
                yield _note("warning", message, net, (*param.path, penalty.mult), layer=param.layer)


def _fields_of_groups_that_do_nothing(
    solver: Definition, net: Definition, params: list[_Param]
) -> Iterator[Diagnostic]:
    message = solver.message
    if message.group_lasso_scale_by_size and not message.HasField("group_lasso_decay"):
        text = "group_lasso_scale_by_size does nothing: the solver has no group_lasso_decay"
        yield _note("warning", text, solver, ("group_lasso_scale_by_size",))
    if message.group_lasso_settle:
        yield from _settling_of_nothing(solver, params)
    for param in params:
        for index, spec in enumerate(param.spec.group_lasso):
            for name in ("xdimen", "ydimen"):
                if spec.HasField(name) and spec.group != pb.GroupLassoSpec.BLOCK:
                    group = pb.GroupLassoSpec.Group.Name(spec.group)
                    text, path = f"{name} does nothing with group {group}", (*param.path, "group_lasso", index, name)
                    yield _note("warning", text, net, path, layer=param.layer, hint="it is for group: BLOCK")


def _settling_of_nothing(solver: Definition, params: list[_Param]) -> Iterator[Diagnostic]:
    message, why = solver.message, ""
    if message.group_lasso_update == pb.SolverParameter.SUBGRADIENT:
        why = "it needs group_lasso_update: PROXIMAL"
    elif message.group_lasso_memory == 0:
        why = "it needs the running means of group_lasso_memory, which is 0"
    elif not any(getattr(message, p.decay) and any(p.strength(each.spec) for each in params) for p in _PENALTIES):
        why = "no param is under a group lasso"
    if why:
        yield _note("warning", f"group_lasso_settle does nothing: {why}", solver, ("group_lasso_settle",))


def _weight_decay_of_nothing(solver: Definition, net: Definition) -> Iterator[Diagnostic]:
    layers = [layer for _, layer in _layers(net) if _has_weights(layer)]
    spared = [layer for layer in layers if layer.param and layer.param[0].decay_mult == 0]
    if solver.message.weight_decay > 0 and layers and len(spared) == len(layers):
        message = f"weight_decay is {solver.message.weight_decay:g}, but reaches no weights: all have decay_mult: 0"
        yield _note("warning", message, solver, ("weight_decay",))


def _regularization_types(solver: Definition, net: Definition, params: list[_Param]) -> Iterator[Diagnostic]:
    places: list[tuple[Any, Definition, Path, Any]] = [(solver.message, solver, (), None)]
    places += [(param.spec, net, param.path, param.layer) for param in params]
    for message, definition, path, layer in places:
        kind = message.regularization_type
        if message.HasField("regularization_type") and kind not in ("L1", "L2"):
            text = f'regularization_type must be "L1" or "L2", not "{kind}"'
            hint = suggestion(kind, ("L1", "L2"))
            yield _note("error", text, definition, (*path, "regularization_type"), value=True, layer=layer, hint=hint)


def _steps_of_another_policy(solver: Definition) -> Iterator[Diagnostic]:
    given = {field.name for field, _ in solver.message.ListFields()}
    policy = solver.message.lr_policy
    for name, policies in _POLICIES.items():
        if name in given and policy not in policies:
            hint = f'it is for lr_policy: "{policies[0]}"'
            yield _note("warning", f'{name} does nothing with lr_policy "{policy}"', solver, (name,), hint=hint)


def _bound_of_nothing(solver: Definition) -> Iterator[Diagnostic]:
    message = solver.message
    if message.HasField("max_data_errors") and message.on_data_error == pb.SolverParameter.STOP:
        text = "max_data_errors does nothing with on_data_error: STOP"
        yield _note("warning", text, solver, ("max_data_errors",), hint="it needs on_data_error: SKIP")


def _tests(solver: Definition) -> Iterator[Diagnostic]:
    """Caffe's rules: one test_iter per test net; net and net_param provide a test net for each remaining test_iter."""
    message = solver.message
    named = len(message.test_net) + len(message.test_net_param)
    shared = message.HasField("net") or message.HasField("net_param")
    iters = len(message.test_iter)
    nets = max(iters, named) if shared else named
    if iters < named or (iters > named and not shared):
        where = ("test_iter",) if iters else ("test_net",) if message.test_net else ("test_net_param",)
        yield _note("error", f"there must be one test_iter for each test net: {named}, not {iters}", solver, where)
    elif nets and message.test_interval <= 0:
        yield _note("error", "test_iter is given, but no test_interval: say how often to test", solver, ("test_iter",))
    elif not nets and message.test_interval > 0:
        yield _note("warning", "test_interval does nothing: there is no test_iter", solver, ("test_interval",))
    if len(message.test_state) not in (0, nets):
        text = f"there must be one test_state for each test net, or none: {nets}, not {len(message.test_state)}"
        yield _note("error", text, solver, ("test_state",))


def _layers(net: Definition) -> Iterator[tuple[int, pb.LayerParameter]]:
    """The layers that can be in the net while it trains, with their indices."""
    for index, layer in enumerate(net.message.layer):
        included = not layer.include or any(_allows_training(rule) for rule in layer.include)
        excluded = any(rule == pb.NetStateRule(phase=pb.TRAIN) for rule in layer.exclude)
        if included and not excluded:
            yield index, layer


def _allows_training(rule: pb.NetStateRule) -> bool:
    return not rule.HasField("phase") or rule.phase == pb.TRAIN


def _params(net: Definition) -> Iterator[_Param]:
    for index, layer in _layers(net):
        for number, spec in enumerate(layer.param):
            yield _Param(spec, layer, ("layer", index, "param", number))


def _has_weights(layer: Any) -> bool:
    """Whether the layer's own message says how weights are filled: that of Convolution, InnerProduct, Embed, LSTM does."""
    messages = (field.message_type for field, _ in layer.ListFields() if field.message_type is not None)
    return any("weight_filler" in message.fields_by_name for message in messages)


def _is_strength(value: float) -> bool:
    return value >= 0 and math.isfinite(value)


def _note(
    level: str,
    message: str,
    definition: Definition,
    path: Path,
    *,
    value: bool = False,
    layer: pb.LayerParameter | None = None,
    hint: str = "",
) -> Diagnostic:
    words = definition.overrides.get(path, "")
    span = None if words else definition.span(*path, value=value)
    name = layer.name if layer is not None else None
    return Diagnostic(level, message, span, definition.path, name or None, hint or (words and f"set by {words}"))
