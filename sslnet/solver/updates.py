"""The registry of update rules; makes the update of each parameter as the solver's definition specifies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sslnet.errors import suggestion
from sslnet.prototxt import Definition
from sslnet.prototxt.old_forms import SOLVER_TYPES
from sslnet.solver.parameter_update import Update
from sslnet.solver.update_rules import SGD, AdaDelta, AdaGrad, Adam, AdamW, Nesterov, RMSProp
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
    """Name of the solver's update rule, from ``type`` or the old ``solver_type``.

    raises DefinitionError for an unknown rule, momentum that the rule does not support, or a coefficient not in [0, 1)
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
    """Makes one update for each learnable parameter, in order, including those that are not trained (lr_mult 0)."""
    cls = UPDATES[update_type(solver)]
    return [cls(param, solver) for param in params]
