"""Which update rule each parameter gets: the registry of rules, and what a solver's definition says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sslnet.errors import DefinitionError, suggestion
from sslnet.prototxt import Definition
from sslnet.prototxt.old_forms import SOLVER_TYPES
from sslnet.solver.update_rules import SGD, AdaDelta, AdaGrad, Adam, AdamW, Nesterov, RMSProp, Update
from sslnet.solver.update_settings import solver_error

UPDATES: dict[str, type[Update]] = {
    "SGD": SGD,
    "Nesterov": Nesterov,
    "AdaGrad": AdaGrad,
    "RMSProp": RMSProp,
    "AdaDelta": AdaDelta,
    "Adam": Adam,
    "AdamW": AdamW,
}


def update_type(solver: Definition) -> str:
    """The update rule that a solver names, by ``type`` or by the old ``solver_type``.

    raises DefinitionError for an unknown rule, and for a momentum or share that the rule cannot work with
    """
    param = solver.message
    old = param.HasField("solver_type") and not param.HasField("type")
    name = SOLVER_TYPES[param.solver_type] if old else param.type
    if name not in UPDATES:
        hint = suggestion(name, UPDATES) or f"one of {', '.join(UPDATES)}"
        raise solver_error(solver, f'unknown solver type "{name}"', "type", hint)
    if param.momentum and not UPDATES[name].TAKES_MOMENTUM:
        raise solver_error(
            solver, f"{name} has no momentum, and momentum is {param.momentum:g}", "momentum", "remove it"
        )
    for share in ("momentum", "momentum2", "rms_decay", "group_lasso_memory"):
        value = getattr(param, share)
        if not 0 <= value < 1:
            raise solver_error(solver, f"{share} must be at least 0 and below 1, not {value:g}", share)
    return name


def make_updates(params: Sequence[Any], solver: Definition) -> list[Update]:
    """An update for each learnable parameter, in their order, also for those that are not trained (lr_mult 0).

    raises DefinitionError for a bias that its filters cannot take along
    """
    cls = UPDATES[update_type(solver)]
    updates: list[Update] = [cls(param, solver) for param in params]
    for update in updates:
        if update.penalty is not None and update.penalty.takes_bias and update.param.lr_mult:
            update.take_along(_bias_of(update.param, updates))
    return updates


def _bias_of(param: Any, updates: Sequence[Update]) -> Update:
    """The update of the bias of a layer, of which param is the weights."""
    found = [update for update in updates if update.param.layer is param.layer and update.param.index == 1]
    if not found:
        raise _bias_error(param, "is shared with another layer")
    (bias,) = found
    if not bias.param.lr_mult:
        raise _bias_error(param, "is not trained, its lr_mult is 0")
    if bias.penalty is not None:
        raise _bias_error(param, "has a group lasso of its own")
    return bias


def _bias_error(param: Any, why: str) -> DefinitionError:
    message = f"the groups of {param.name} cannot include the bias: it {why}"
    return DefinitionError(message, span=param.span("group_lasso"), layer=param.layer.name)
