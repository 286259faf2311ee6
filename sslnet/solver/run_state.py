"""Converts the state of a training run to a SolverState for a snapshot, and restores it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from sslnet.errors import WeightsError
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.solver.averaged_weights import AveragedWeights
from sslnet.solver.best_snapshot import BestSnapshot
from sslnet.solver.data_errors import DataErrors
from sslnet.solver.lr_policies import PlateauWatch
from sslnet.solver.parameter_update import Update
from sslnet.solver.penalized_update import PenalizedUpdate
from sslnet.solver.snapshot import SolverState


class StrengthControl(Protocol):
    """Adjusts the strengths of a solver's penalties during training; its state is part of the run's state."""

    def start(self, solver: Any) -> None: ...

    def after_iteration(self, solver: Any) -> None: ...

    def state(self) -> dict[str, np.ndarray]: ...

    def set_state(self, state: dict[str, np.ndarray]) -> None: ...


class SolverParts(Protocol):
    """The attributes of a solver that a snapshot saves and restores."""

    definition: Definition
    param: Any
    """The pb.SolverParameter."""
    prefix: str
    iter: int
    current_step: int
    seed: int
    net: Net
    test_nets: list[Net]
    updates: list[Update]
    penalties: list[PenalizedUpdate]
    steering: StrengthControl | None
    data_errors: DataErrors
    losses: deque[float]
    plateau: PlateauWatch
    average: AveragedWeights
    best: BestSnapshot


def nets_of(solver: SolverParts) -> dict[str, Net]:
    """All nets of a solver by their names in snapshots."""
    return {"train": solver.net, **{f"test{k}": net for k, net in enumerate(solver.test_nets)}}


def take_run(solver: SolverParts, weights: str) -> SolverState:
    """The current state of a run.  weights: the path of the weights that belong to it"""
    state = SolverState(solver.iter, weights, _history(solver.updates), solver.current_step, seed=solver.seed)
    nets = nets_of(solver)
    state.layer_states = {f"{name}/{k}": data for name, net in nets.items() for k, data in net.layer_states().items()}
    for update in solver.updates:
        if update.mean is not None:
            state.arrays[f"mean/{update.param.name}"] = update.mean
        if update.keep is not None:
            state.arrays[f"keep/{update.param.name}"] = update.keep.astype(np.float32)
    for penalized in solver.penalties:
        state.arrays |= penalized.state()
    if solver.steering is not None:
        state.arrays |= {f"steering/{name}": array for name, array in solver.steering.state().items()}
    state.arrays["losses"] = np.array(solver.losses, np.float64)
    if solver.plateau.state():
        state.arrays["plateau"] = np.array(solver.plateau.state(), np.float64)
    state.arrays |= solver.best.state()
    state.arrays |= solver.average.state()
    if solver.data_errors.count:
        state.arrays["data_errors"] = np.array([solver.data_errors.count], np.float64)
    return state


def check_run(solver: SolverParts, state: SolverState, path: str | os.PathLike[str]) -> None:
    """Raises WeightsError unless the state fits the solver, so that ``put_run`` can restore it."""
    check_history(state, solver.updates, path)
    _count(state.arrays.get("data_errors"), path)


def put_run(solver: SolverParts, state: SolverState, path: str | os.PathLike[str]) -> None:
    """Restores the state that ``take_run`` made; parts that a file written by Caffe lacks keep their initial values.

    raises WeightsError when a layer cannot read its own state
    """
    nets = nets_of(solver)
    if state.seed is not None and state.seed != solver.seed:
        solver.seed = state.seed
        for net in nets.values():
            net.reseed(solver.seed)
    solver.iter, solver.current_step = state.iteration, state.current_step
    for place, array in zip(_history(solver.updates), state.history):
        place[...] = array.reshape(place.shape)
    for update in solver.updates:
        keep = state.arrays.get(f"keep/{update.param.name}")
        update.keep = None if keep is None else keep.reshape(-1).astype(np.uint8)
        if update.mean is not None:
            mean = state.arrays.get(f"mean/{update.param.name}")
            update.mean[...] = 0 if mean is None else mean.reshape(update.mean.shape)
    for penalized in solver.penalties:
        penalized.set_state(state.arrays)
    for name, net in nets.items():
        try:
            net.set_layer_states(_starting_with(f"{name}/", state.layer_states))
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"a layer's state is damaged: {error}", path=os.fspath(path)) from error
    if solver.steering is not None:
        solver.steering.set_state(_starting_with("steering/", state.arrays))
    solver.losses.clear()
    solver.losses.extend(state.arrays.get("losses", np.empty(0)).tolist())
    solver.plateau.set_state(state.arrays.get("plateau", np.empty(0)).tolist())
    solver.best.set_state(state.arrays.get("best"))
    solver.average.set_state(state.arrays)
    solver.data_errors.count = _count(state.arrays.get("data_errors"), path)


def _starting_with(start: str, found: dict[str, Any]) -> dict[str, Any]:
    """The entries whose names begin with ``start``, with that prefix removed."""
    return {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}


def check_history(state: SolverState, updates: Sequence[Update], path: str | os.PathLike[str]) -> None:
    """Raises WeightsError unless the history in a state fits these updates."""
    places, path = _history(updates), os.fspath(path)
    if len(state.history) != len(places):
        raise WeightsError(
            f"the state has {len(state.history)} history arrays, the solver needs {len(places)} for its net",
            path=path,
            hint="it belongs to another net, or another type of solver",
        )
    for index, (array, place) in enumerate(zip(state.history, places)):
        if array.size != place.size:
            message = f"history array {index} has {array.size} values, the net's parameter {place.size}"
            raise WeightsError(message, path=path, hint="it belongs to another net")
    for update in updates:
        if (
            update.solver.group_lasso_settle
            and update.mean is not None
            and f"mean/{update.param.name}" not in state.arrays
        ):
            message = (
                f"the state has no running mean of the gradients of {update.param.name}, which group_lasso_settle needs"
            )
            raise WeightsError(message, path=path, hint="start from its weights, or without group_lasso_settle")


def _history(updates: Sequence[Update]) -> list[np.ndarray]:
    """The update rules' arrays in Caffe's order: the first array of every parameter, then the second ones."""
    depth = type(updates[0]).HISTORY if updates else 0
    return [update.history[k] for k in range(depth) for update in updates]


def _count(array: np.ndarray | None, path: str | os.PathLike[str]) -> int:
    """The non-negative integer in an array of size 1; 0 for None. raises WeightsError for any other array"""
    if array is None:
        return 0
    value = float(array.reshape(-1)[0]) if array.size == 1 else -1.0
    if not (0 <= value < 2**53) or value != int(value):
        raise WeightsError("the number of skipped batches is damaged", path=os.fspath(path))
    return int(value)
