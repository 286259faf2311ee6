"""Learning rate policies: Caffe's seven, cosine and onecycle, one function each, and those of its forks.

    rate, current_step = learning_rate(param, iteration, current_step)

``current_step`` is the number of drops of `step`, `multistep`, `plateau` and `stepearly` so far; snapshots save it, as in Caffe.

Before the policy acts the rate rises to base_lr: in a line over warmup_iter iterations (Intel), or in a parabola over
rampup_interval iterations (NVIDIA). It is never below min_lr (NVIDIA).

A checked policy has a rate for every iteration, even after max_iter: results beyond the range of a float are infinite
(``_power``), and ``check`` rejects settings whose formula becomes undefined within max_iter.

Ref: Caffe's SGDSolver::GetLearningRate, and those of intel/caffe, NVIDIA/caffe 0.17 and weiliu89/caffe (SSD);
Loshchilov and Hutter 2017, "SGDR", eq. 5 without restarts (cosine); Smith and Topin 2019, "Super-Convergence" (onecycle)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    rate: float = param.base_lr / (1 + math.exp(min(exponent, 700)))
    return rate, current_step


def multifixed(param: Any, iteration: int, current_step: int) -> Rate:
    """stagelr of the first stage whose stageiter is not yet passed, and of the last one after that"""
    stage = sum(iteration > last for last in param.stageiter)
    return param.stagelr[min(stage, len(param.stagelr) - 1)], current_step


def plateau(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * gamma ^ (number of drops), a drop where the smoothed loss had no new minimum for plateau_winsize iterations

    The drops are counted by ``PlateauWatch``.
    """
    return _scaled(param.base_lr, _power(param.gamma, current_step)), current_step


def stepearly(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * gamma ^ (number of drops), a drop after stepearly tests in a row without a new highest score

    The drops are counted by ``PlateauWatch``; the score is the first output of the first test net.
    """
    return _scaled(param.base_lr, _power(param.gamma, current_step)), current_step


class PlateauWatch:
    """Counts the drops of the policies `plateau` and `stepearly`, which follow the progress of a run.

    plateau    each of plateau_winsize is the number of iterations without a new lowest smoothed loss after which the rate drops
    stepearly  number of tests without a new highest score after which it drops
    """

    def __init__(self, param: Any) -> None:
        self.winsize = list(param.plateau_winsize) if param.lr_policy == "plateau" else []
        self.patience = int(param.stepearly) if param.lr_policy == "stepearly" else 0
        self.minimum = math.inf
        """The lowest loss, or minus the highest score."""
        self.last = 0
        """Iteration of the last event; for stepearly: tests since then."""
        self._falls = 0

    def drops(self, iteration: int, smoothed_loss: float, current_step: int) -> int:
        """The number of drops with the loss of this iteration, one more than before or as many."""
        if self._falls:
            current_step, self._falls = current_step + self._falls, 0
        if not self.winsize:
            return current_step
        if smoothed_loss < self.minimum:
            self.minimum, self.last = smoothed_loss, iteration
        if current_step < len(self.winsize) and iteration - self.last >= self.winsize[current_step]:
            self.last = iteration
            return current_step + 1
        return current_step

    def tested(self, net: int, outputs: Sequence[tuple[str, float, float]]) -> None:
        """Counts a test.  net: number of the test net; outputs: (name, value, loss weight) of its results"""
        if not self.patience or net or not outputs:
            return
        if -outputs[0][1] < self.minimum:
            self.minimum, self.last = -outputs[0][1], 0
            return
        self.last += 1
        if self.last >= self.patience:
            self.last, self._falls = 0, self._falls + 1

    def state(self) -> list[float]:
        """What a snapshot saves: lowest loss, iteration of the last event; for stepearly the drops to come, too."""
        if self.patience:
            return [self.minimum, float(self.last), float(self._falls)]
        return [self.minimum, float(self.last)] if self.winsize else []

    def set_state(self, state: list[float]) -> None:
        """Restores what ``state`` returned; an empty state is that of the first iteration."""
        if len(state) in (2, 3):
            self.minimum, self.last = float(state[0]), int(state[1])
            self._falls = int(state[2]) if len(state) == 3 else 0


def cosine(param: Any, iteration: int, current_step: int) -> Rate:
    """base_lr * (1 + cos(pi * iteration / max_iter)) / 2, zero from max_iter on"""
    passed = min(1.0, iteration / param.max_iter)
    return _scaled(param.base_lr, (1 + math.cos(math.pi * passed)) / 2), current_step


def onecycle(param: Any, iteration: int, current_step: int) -> Rate:
    """From base_lr / div_factor up to base_lr in pct_start * max_iter iterations, then down to base_lr / div_factor /
    final_div_factor in the last one, both in half a cosine wave; PyTorch's OneCycleLR without its cycle of momentum"""
    low, end = param.base_lr / param.div_factor, param.max_iter - 1
    peak = min(max(0.0, param.pct_start * param.max_iter - 1), end)
    if iteration < peak:
        start, goal, passed = low, param.base_lr, iteration / peak
    else:
        start, goal = param.base_lr, low / param.final_div_factor
        passed = min(1.0, (iteration - peak) / (end - peak)) if end > peak else float(iteration > peak)
    return goal + (start - goal) * (1 + math.cos(math.pi * passed)) / 2, current_step


def _power(base: float, exponent: float) -> float:
    """base ^ exponent for a base >= 0 or an integer exponent; infinite on overflow and for 0 ^ negative."""
    try:
        return float(base**exponent)
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
    "onecycle": (onecycle, ("max_iter",)),
    "multifixed": (multifixed, ("stagelr", "stageiter")),
    "plateau": (plateau, ("gamma", "plateau_winsize")),
    "stepearly": (stepearly, ("gamma", "stepearly")),
}
"""The function of each policy and its required fields besides base_lr."""


def learning_rate(param: Any, iteration: int, current_step: int) -> Rate:
    """The rate of an iteration (counted from 0) and the new current_step. param: a checked pb.SolverParameter."""
    if iteration < param.warmup_iter:
        start, share = param.warmup_start_lr, iteration / param.warmup_iter
        rate = start + (param.base_lr - start) * share
    elif iteration < param.rampup_interval:
        start, share = param.rampup_lr, (iteration / param.rampup_interval) ** 2
        rate = start + (param.base_lr - start) * share
    else:
        rate, current_step = POLICIES[param.lr_policy][0](param, iteration, current_step)
    return max(rate, param.min_lr) if param.HasField("min_lr") else rate, current_step


MISSING = {"base_lr": "the file gives no learning rate; on the command line: --set base_lr=0.01"}
"""Hints for fields that a policy needs and the file lacks."""


def check(definition: Definition) -> None:
    """Raises DefinitionError for an unknown policy, or one whose fields are missing or out of range."""
    param = definition.message
    policy = param.lr_policy
    if policy not in POLICIES:
        message = f'unknown lr_policy "{policy}"' if policy else "the solver has no lr_policy"
        hint = suggestion(policy, POLICIES) or f"one of {', '.join(POLICIES)}"
        raise _error(definition, message, "lr_policy", hint, value=True)
    base = () if policy == "multifixed" else ("base_lr",)
    for name in (*base, *POLICIES[policy][1]):
        repeated = name in ("stepvalue", "stagelr", "stageiter", "plateau_winsize")
        if not (len(getattr(param, name)) if repeated else param.HasField(name)):
            raise _error(definition, f'lr_policy "{policy}" needs {name}', "lr_policy", MISSING.get(name, ""))
    if policy == "step" and param.stepsize <= 0:
        raise _error(definition, f"stepsize must be positive, not {param.stepsize}", "stepsize", "", value=True)
    if policy in ("poly", "cosine", "onecycle") and param.max_iter <= 0:
        raise _error(definition, f"max_iter must be positive, not {param.max_iter}", "max_iter", "", value=True)
    if policy == "inv" and not _is_polynomial(param):
        end = 1 + param.gamma * param.max_iter
        if end <= 0 if param.power > 0 else end < -1e-6:  # a gamma of -1 / max_iter is rounded to float32
            message = f"1 + gamma * iteration must stay above 0 up to max_iter {param.max_iter}, and ends at {end:g}"
            raise _error(definition, message, "gamma", f"with power {param.power:g} there is no rate there", value=True)
    _check_onecycle(definition)
    _check_forks(definition)
    drops = list(param.stepvalue)
    for index in range(1, len(drops)):
        if policy == "multistep" and drops[index] < drops[index - 1]:
            message = f"stepvalue {drops[index]} comes after {drops[index - 1]}"
            span = definition.span("stepvalue", index, value=True)
            raise DefinitionError(message, span=span, path=definition.path, hint="give them in ascending order")


def _check_forks(definition: Definition) -> None:
    """Raises DefinitionError for values of the forks' fields that have no meaning."""
    param = definition.message
    for name in ("warmup_iter", "rampup_interval", "warmup_start_lr", "rampup_lr", "min_lr"):
        if getattr(param, name) < 0:
            message = f"{name} must be 0 or above, not {getattr(param, name):g}"
            raise _error(definition, message, name, "", value=True)
    if len(param.stagelr) != len(param.stageiter):
        message = f"there are {len(param.stagelr)} stagelr and {len(param.stageiter)} stageiter"
        span = definition.span("stagelr", 0)
        raise DefinitionError(message, span=span, path=definition.path, hint="each stage has one of both")
    for index, rate in enumerate(param.stagelr):
        if rate < 0:
            span = definition.span("stagelr", index, value=True)
            raise DefinitionError(f"stagelr must be 0 or above, not {rate:g}", span=span, path=definition.path)
    if param.lr_policy == "stepearly" and param.stepearly < 1:
        raise _error(definition, f"stepearly must be 1 or above, not {param.stepearly}", "stepearly", "", value=True)
    for index, count in enumerate(param.plateau_winsize):
        if count < 1:
            span = definition.span("plateau_winsize", index, value=True)
            raise DefinitionError(f"plateau_winsize must be 1 or above, not {count}", span=span, path=definition.path)


def _check_onecycle(definition: Definition) -> None:
    """Raises DefinitionError for factors of onecycle that are out of range."""
    param = definition.message
    if not 0 <= param.pct_start <= 1:
        raise _error(definition, f"pct_start must be from 0 to 1, not {param.pct_start:g}", "pct_start", "", value=True)
    for name in ("div_factor", "final_div_factor"):
        if not getattr(param, name) >= 1:
            message = f"{name} must be 1 or above, not {getattr(param, name):g}"
            raise _error(definition, message, name, "", value=True)


def _error(definition: Definition, message: str, name: str, hint: str, value: bool = False) -> DefinitionError:
    span = definition.span(name, value=value) if definition.message.HasField(name) else None
    return DefinitionError(message, span=span, path=definition.path, hint=hint)
