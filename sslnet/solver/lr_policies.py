"""Learning rate policies: Caffe's seven and cosine, one function each.

    rate, current_step = learning_rate(param, iteration, current_step)

``current_step`` is the number of drops of `step` and `multistep` so far; snapshots save it, as in Caffe.

A checked policy has a rate for every iteration, even after max_iter: results beyond the range of a float are infinite
(``_power``), and ``check`` rejects settings whose formula becomes undefined within max_iter.

Ref: Caffe's SGDSolver::GetLearningRate; Loshchilov and Hutter 2017, "SGDR", eq. 5 without restarts (cosine)
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
    return _scaled(param.base_lr, _power(param.gamma, current_step)), current_step


def exp(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * gamma ^ iteration"""
    return _scaled(param.base_lr, _power(param.gamma, iteration)), current_step


def inv(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * (1 + gamma * iteration) ^ -power; a negative base counts as 0 unless -power is a non-negative integer"""
    base = 1 + param.gamma * iteration
    return _scaled(param.base_lr, _power(base if _is_polynomial(param) else max(0.0, base), -param.power)), current_step


def multistep(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * gamma ^ (number of stepvalues passed)

    Each call makes at most one drop, starting from current_step, so a run resumed with different stepvalues continues
    from its current rate.
    """
    current_step = max(0, current_step)
    if current_step < len(param.stepvalue) and iteration >= param.stepvalue[current_step]:
        current_step += 1
    return _scaled(param.base_lr, _power(param.gamma, current_step)), current_step


def poly(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * (1 - iteration / max_iter) ^ power, zero from max_iter on"""
    if iteration >= param.max_iter:
        return 0.0, current_step
    return _scaled(param.base_lr, _power(1 - iteration / param.max_iter, param.power)), current_step


def sigmoid(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize)))"""
    exponent = -param.gamma * (iteration - param.stepsize)
    return param.base_lr / (1 + math.exp(min(exponent, 700))), current_step


def cosine(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * (1 + cos(pi * iteration / max_iter)) / 2, zero from max_iter on"""
    passed = min(1.0, iteration / param.max_iter)
    return _scaled(param.base_lr, (1 + math.cos(math.pi * passed)) / 2), current_step


def _power(base: float, exponent: float) -> float:
    """base ^ exponent for a base >= 0 or an integer exponent; infinite on overflow and for 0 ^ negative."""
    try:
        return base**exponent
    except (OverflowError, ZeroDivisionError):
        return -math.inf if base < 0 and exponent % 2 else math.inf


def _scaled(base_lr: float, factor: float) -> float:
    """base_lr * factor; 0 if base_lr is 0, even for an infinite factor."""
    return base_lr * factor if base_lr else 0.0


def _is_polynomial(param: Any) -> bool:
    """Whether `inv` is a polynomial in the iteration, so defined for negative bases too; `power: -1` gives a line."""
    return bool(param.power <= 0 and param.power % 1 == 0)


POLICIES: dict[str, tuple[Callable[[Any, int, int], Rate], tuple[str, ...]]] = {
    "fixed": (fixed, ()),
    "step": (step, ("gamma", "stepsize")),
    "exp": (exp, ("gamma",)),
    "inv": (inv, ("gamma", "power")),
    "multistep": (multistep, ("gamma", "stepvalue")),
    "poly": (poly, ("power", "max_iter")),
    "sigmoid": (sigmoid, ("gamma", "stepsize")),
    "cosine": (cosine, ("max_iter",)),
}
"""The function of each policy and its required fields besides base_lr."""


def learning_rate(param: Any, iteration: int, current_step: int) -> Rate:
    """The rate of an iteration (counted from 0) and the new current_step. param: a checked pb.SolverParameter."""
    return POLICIES[param.lr_policy][0](param, iteration, current_step)


def check(definition: Definition) -> None:
    """Raises DefinitionError for an unknown policy, or one whose fields are missing or out of range."""
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
    if policy in ("poly", "cosine") and param.max_iter <= 0:
        raise _error(definition, f"max_iter must be positive, not {param.max_iter}", "max_iter", "", value=True)
    if policy == "inv" and not _is_polynomial(param):
        end = 1 + param.gamma * param.max_iter
        if end <= 0 if param.power > 0 else end < -1e-6:  # a gamma of -1 / max_iter is rounded to float32
            message = f"1 + gamma * iteration must stay above 0 up to max_iter {param.max_iter}, and ends at {end:g}"
            raise _error(definition, message, "gamma", f"with power {param.power:g} there is no rate there", value=True)
    drops = list(param.stepvalue)
    for index in range(1, len(drops)):
        if policy == "multistep" and drops[index] < drops[index - 1]:
            message = f"stepvalue {drops[index]} comes after {drops[index - 1]}"
            span = definition.span("stepvalue", index, value=True)
            raise DefinitionError(message, span=span, path=definition.path, hint="give them in ascending order")


def _error(definition: Definition, message: str, name: str, hint: str, value: bool = False) -> DefinitionError:
    span = definition.span(name, value=value) if definition.message.HasField(name) else None
    return DefinitionError(message, span=span, path=definition.path, hint=hint)
