"""Learning rates over the iterations: Caffe's seven policies, as one function each.

    rate, current_step = learning_rate(param, iteration, current_step)

``current_step`` counts the drops of `step` and `multistep` so far; it is part of a snapshot, as in Caffe.

Ref: Caffe's SGDSolver::GetLearningRate
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sslnet.errors import DefinitionError, suggestion
from sslnet.prototxt import Definition

Rate = tuple[float, int]


def fixed(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr"""
    return param.base_lr, current_step


def step(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * gamma ^ floor(iteration / stepsize)"""
    current_step = iteration // param.stepsize
    return param.base_lr * param.gamma**current_step, current_step


def exp(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * gamma ^ iteration"""
    return param.base_lr * param.gamma**iteration, current_step


def inv(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * (1 + gamma * iteration) ^ -power"""
    return param.base_lr * (1 + param.gamma * iteration) ** -param.power, current_step


def multistep(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * gamma ^ (number of stepvalues passed)

    A drop a call, counted on from current_step, so that a run resumed with other stepvalues goes on from its own rate.
    """
    if current_step < len(param.stepvalue) and iteration >= param.stepvalue[current_step]:
        current_step += 1
    return param.base_lr * param.gamma**current_step, current_step


def poly(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * (1 - iteration / max_iter) ^ power, zero from max_iter on"""
    return param.base_lr * max(0.0, 1 - iteration / param.max_iter) ** param.power, current_step


def sigmoid(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize)))"""
    exponent = -param.gamma * (iteration - param.stepsize)
    return param.base_lr / (1 + math.exp(min(exponent, 700))), current_step


POLICIES: dict[str, tuple[Callable[[Any, int, int], Rate], tuple[str, ...]]] = {
    "fixed": (fixed, ()),
    "step": (step, ("gamma", "stepsize")),
    "exp": (exp, ("gamma",)),
    "inv": (inv, ("gamma", "power")),
    "multistep": (multistep, ("gamma", "stepvalue")),
    "poly": (poly, ("power", "max_iter")),
    "sigmoid": (sigmoid, ("gamma", "stepsize")),
}
"""Each policy and the fields that it cannot do without, beside base_lr."""


def learning_rate(param: Any, iteration: int, current_step: int) -> Rate:
    """The rate of an iteration (counted from 0) and the new current_step. param: a checked pb.SolverParameter."""
    return POLICIES[param.lr_policy][0](param, iteration, current_step)


def check(definition: Definition) -> None:
    """raises DefinitionError for a policy that does not exist, or one whose fields are missing or out of range."""
    param = definition.message
    policy = param.lr_policy
    if policy not in POLICIES:
        message = f'unknown lr_policy "{policy}"' if policy else "the solver has no lr_policy"
        hint = suggestion(policy, POLICIES) or f"one of {', '.join(POLICIES)}"
        raise _error(definition, message, "lr_policy", hint, value=True)
    for name in ("base_lr", *POLICIES[policy][1]):
        repeated = name == "stepvalue"
        if not (len(param.stepvalue) if repeated else param.HasField(name)):
            raise _error(definition, f'lr_policy "{policy}" needs {name}', "lr_policy", "")
    if policy == "step" and param.stepsize <= 0:
        raise _error(definition, f"stepsize must be positive, not {param.stepsize}", "stepsize", "", value=True)
    if policy == "poly" and param.max_iter <= 0:
        raise _error(definition, f"max_iter must be positive, not {param.max_iter}", "max_iter", "", value=True)
    drops = list(param.stepvalue)
    for index in range(1, len(drops)):
        if policy == "multistep" and drops[index] < drops[index - 1]:
            message = f"stepvalue {drops[index]} comes after {drops[index - 1]}"
            span = definition.span("stepvalue", index, value=True)
            raise DefinitionError(message, span=span, path=definition.path, hint="give them in ascending order")


def _error(definition: Definition, message: str, name: str, hint: str, value: bool = False) -> DefinitionError:
    span = definition.span(name, value=value) if definition.message.HasField(name) else None
    return DefinitionError(message, span=span, path=definition.path, hint=hint)
