"""Adapts a solver's definition to one of several trainings, and checks it before training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sslnet import sslnet_pb2 as pb
from sslnet.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

STRENGTHS = ("breadth_decay", "kernel_shape_decay", "block_group_decay", "group_lasso_decay")
"""Fields of a solver with the strengths of penalties."""


def fit_schedule(param: pb.SolverParameter, iterations: int) -> None:
    """Sets max_iter, and rescales the learning rate schedule accordingly.  [changes param]"""
    ratio = iterations / param.max_iter if param.max_iter else 1.0
    param.max_iter = iterations
    if param.HasField("stepsize"):
        param.stepsize = max(1, round(param.stepsize * ratio))
    param.stepvalue[:] = [round(value * ratio) for value in param.stepvalue]
    if param.lr_policy == "exp":
        param.gamma **= 1 / ratio
    elif param.lr_policy in ("inv", "sigmoid"):
        param.gamma /= ratio


def quiet(param: pb.SolverParameter) -> None:
    """Removes the test nets, the final snapshot and the initial weights from a solver.  [changes param]

    raises UsageError for snapshot_best and patience, which need the solver's own tests
    """
    for name in ("snapshot_best", "patience"):
        if getattr(param, name):
            raise UsageError(
                f"{name} cannot be used here: the solver does not test while its nets are compressed",
                hint=f"remove it from the solver, or give --set {name}={'' if name == 'snapshot_best' else 0}",
            )
    for name in ("test_iter", "test_interval", "test_initialization", "test_compute_loss", "test_state", "test_net"):
        param.ClearField(name)
    param.ClearField("test_net_param")
    param.ClearField("weights")
    param.snapshot_after_train = False


def check_started(solver: Solver, weights: Sequence[str | os.PathLike[str]]) -> None:
    """Raises WeightsError if a weights file has no layer of the net."""
    for path, copied in zip(weights, solver.copied[len(solver.copied) - len(weights) :]):
        if not copied.copied:
            raise WeightsError(f'no layer of the net "{solver.net.name}" is in it', path=os.fspath(path))


def check_turnable(solver: Solver) -> None:
    """Raises UsageError unless there is a penalty of adjustable strength that makes weights zero."""
    if not any(each.by_prox for each in solver.penalties):
        raise UsageError(
            "no parameter of the net has a group lasso with proximal updates",
            hint="set strengths in the solver and multipliers in the net: docs/prototxt.md",
        )
