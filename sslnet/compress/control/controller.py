"""Strength controller: raises and lowers the strengths of penalties during training until the net meets a target.

At every check the controller compares the remaining cost of the net, now and as predicted from the groups' rates of
shrinkage, with the schedule (``sslnet.compress.control.schedule``), and adjusts the strengths. Once a target is met, the
zeros are frozen, the penalties end, and the rest of the run fine-tunes the remaining weights.

To prevent collapse, strengths are lowered while the loss has risen too far towards that of the net without all its groups
(``loss_watch``), and the last rows of essential layers are kept (``collapse_guard``). A target not met at GIVE_UP is given
up, with an estimate of the iterations that it needs; with ``cut``, the groups that the penalty would zero next are instead
set to zero at LEARN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sslnet.compress.control import schedule
from sslnet.compress.control.collapse_guard import CollapseGuard
from sslnet.compress.control.estimate import RemainingPart, costs, remaining_parts, remaining_share
from sslnet.compress.control.goals import GIVEN_UP, MET, Goal, make_goals, share_out
from sslnet.compress.control.latency_model import LatencyBenchmark, LatencyModel
from sslnet.compress.control.loss_watch import LossWatch
from sslnet.compress.control.penalty_handles import PenaltyHandle, find_handles, thinned
from sslnet.compress.control.shrinkage import (
    Shrinkage,
    all_norms,
    lifetimes,
    relative_norms,
    split_by_handle,
    time_to_target,
)
from sslnet.compress.control.targets import Targets
from sslnet.compress.evaluation import find_trial
from sslnet.errors import RunError, UsageError, WeightsError
from sslnet.net.net import Net
from sslnet.solver import lr_policies
from sslnet.sparsity.optimality import undisturbed

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

CHECKS_BETWEEN_BENCHMARKS = 5
LEAST_FLOOR = 0.01
"""Smallest floor, as a fraction of the groups, beside none."""


class StrengthController:
    """Adjusts the strengths of a solver's penalties until the net meets its targets.

    Each layer with a target is controlled separately. If the net has no target, layers without one keep their strengths.

    tell   called with a line of text for each event
    floor  fraction of the groups of each kind, at least one, that keeps its largest members; halved until the targets can
           be met with it
    """

    def __init__(self, targets: Targets, tell: Callable[[str], None] = lambda line: None, floor: float = 0.0) -> None:
        self.targets, self.tell, self.floor = targets, tell, floor
        self.goals = make_goals(targets)
        self.handles: list[PenaltyHandle] = []
        self._loss = LossWatch()
        self._guard = CollapseGuard([])
        self._shrinkage = Shrinkage(np.zeros(0))
        self._benchmarked = 0
        self._latency: LatencyModel | None = None
        self._saved: Mapping[str, np.ndarray] | None = None

    @property
    def met(self) -> bool:
        """Whether all targets are met."""
        return all(goal.status == MET for goal in self.goals)

    @property
    def remaining(self) -> float:
        """Remaining fraction of the net's cost, or of that of the last layer with a target."""
        return self.goals[-1].remaining

    def missed(self) -> str:
        """Text that lists the targets not met; "" if all are met."""
        return "; ".join(f"{g.found()}, not {g.wanted(short=True)}" for g in self.goals if g.status != MET)

    # -- beginning ---------------------------------------------------------------------------------------------------

    def start(self, solver: Solver) -> None:
        """Prepares the controller; call it before the first iteration and after restoring a snapshot.

        raises UsageError for a layer that does not exist or has no groups, and for a target that the groups cannot reach
        """
        self.handles = find_handles(solver)
        if not self.handles and self._saved is None:
            raise UsageError(
                "a target needs a group lasso with proximal updates: no parameter of the net has one",
                hint="set strengths in the solver and multipliers in the net: docs/prototxt.md",
            )
        self._costs = costs(solver.net, self.targets.of) if self.targets.of != "speedup" else []
        share_out(self.goals, self.handles, solver.net.layer_names)
        self._guard = CollapseGuard(self.handles)
        self._shrinkage = Shrinkage(all_norms(self.handles))
        if self._saved is None:
            self._begin(solver)
        else:
            self._resume(solver, self._saved)
        self._turn()

    def _begin(self, solver: Solver) -> None:
        self._guard.choose()
        if self.targets.of == "speedup":
            self.tell("measuring how the time of each layer depends on its remaining channels")
            self._latency = solver.batches.agree(lambda: self._measure(solver))
        rate, _ = lr_policies.learning_rate(solver.param, solver.iter, solver.current_step)
        while self.floor and not all(self._least(goal, solver) <= goal.target for goal in self.goals):
            self.floor = self.floor / 2 if self.floor > LEAST_FLOOR else 0.0
        self._spare()
        for goal in self.goals:
            self._check_reachable(goal, solver)
            times = [time for handle in goal.handles if (time := lifetimes(handle, rate)) is not None]
            if len(times) == len(goal.handles):
                iterations = self._time_to_target(solver, goal, goal.handles, times)
                goal.log_factor = schedule.first_log_factor(iterations, solver.param.max_iter)

    def _measure(self, solver: Solver) -> LatencyModel:
        benchmark = LatencyBenchmark(find_trial(solver.definition, solver.seed), self.targets.batch)
        return LatencyModel.measure(solver, self.handles, benchmark)

    def _check_reachable(self, goal: Goal, solver: Solver) -> None:
        """Raises UsageError if the target is missed even with a single group left of each kind."""
        least = self._least(goal, solver)
        if least <= goal.target:
            return
        rest = f"{100 * least:.3g} % remain even if each layer with groups keeps only one of them"
        if self._latency is not None:
            rest = f"with one group left in each layer it would be about {1 / least:.3g}"
        raise UsageError(
            f"{goal.wanted()} cannot be reached: {rest}",
            hint="choose a milder target, or declare groups on more layers",
        )

    def _least(self, goal: Goal, solver: Solver) -> float:
        """Remaining fraction of a goal's cost with as few groups as the floor allows; 0 if the net would be disconnected."""
        with thinned(goal.handles, [handle.first(self.floor) for handle in goal.handles]):
            try:
                return self._remaining(goal, solver.net, remaining_parts(solver.net))
            except RunError:
                return 0.0

    def _spare(self) -> None:
        """Exempts the groups that the floor keeps from the penalties."""
        for handle in self.handles if self.floor else ():
            handle.spare(self.floor)

    # -- during training ---------------------------------------------------------------------------------------------

    def after_iteration(self, solver: Solver) -> None:
        """Restores the last rows of essential layers if they became zero; at a check adjusts strengths or ends goals."""
        if all(goal.status for goal in self.goals):
            return
        self._loss.update(solver.net.loss, solver.param.max_iter, lambda: self._collapsed_loss(solver))
        zeroed = self._guard.zeroed()
        if zeroed:
            self._end_held(solver, self._guard.restore(solver, zeroed))
        if solver.iter % schedule.check_interval(solver.param.max_iter) == 0:
            self._check(solver)

    def _collapsed_loss(self, solver: Solver) -> float:
        """The loss on the next batch of the net with all penalised groups set to zero."""
        nothing = [np.zeros(handle.count, np.bool_) for handle in self.handles]
        with undisturbed(solver.net), thinned(self.handles, nothing):
            solver.net.forward()
            return float(solver.net.loss)

    def _check(self, solver: Solver) -> None:
        run = solver.param.max_iter
        self._shrinkage.update(all_norms(self.handles), schedule.check_interval(run))
        now = remaining_parts(solver.net)
        self._end_held(solver, self._guard.collapsing(solver.net))
        self._guard.choose()
        predicted = self._predicted(solver, max(schedule.NEAR, schedule.AHEAD * run))
        for goal in self.goals:
            if goal.status:
                continue
            goal.remaining = self._remaining(goal, solver.net, now)
            if goal.remaining <= goal.target and self._is_confirmed(solver, goal, now):
                self._finish(solver, goal, MET)
            elif self.targets.cut and solver.iter >= schedule.LEARN * run:
                self._cut(solver, goal)
            elif solver.iter >= schedule.GIVE_UP * run:
                self._finish(solver, goal, GIVEN_UP)
            else:
                self._move(solver, goal, predicted)
        self._spare()
        self._turn()

    def _move(self, solver: Solver, goal: Goal, predicted: list[RemainingPart] | None) -> None:
        """Changes a goal's strength factor according to its deviation from the schedule."""
        passed, most = solver.iter / solver.param.max_iter, schedule.largest_change(solver.param.max_iter)
        then = self._remaining(goal, solver.net, predicted) if predicted is not None else 0.0
        change = schedule.log_factor_change(goal.target, passed, goal.remaining, then)
        if self._loss.has_risen:
            change = -2 * most
        goal.log_factor += min(most, max(-2 * most, change))

    def _is_confirmed(self, solver: Solver, goal: Goal, now: list[RemainingPart]) -> bool:
        """Whether a benchmark confirms a speedup target that the latency model predicts as met; True for other targets."""
        if self._latency is None:
            return True
        checks = self._shrinkage.checks
        if self._benchmarked > 0 and checks < self._benchmarked + CHECKS_BETWEEN_BENCHMARKS:
            return False
        self._benchmarked = checks
        comparison = self._latency.verify(solver, now, self.targets.batch)
        if comparison is not None:
            goal.remaining = 1 / comparison.speedup
            self.tell(f"iteration {solver.iter}: compacted, the net runs {comparison}")
        return goal.remaining <= goal.target

    def _predicted(self, solver: Solver, iterations: float) -> list[RemainingPart] | None:
        """Predicted remaining part of each layer after that many iterations; None if the net will be disconnected."""
        turned = np.repeat([not h.ended for h in self.handles], [h.count for h in self.handles])
        zero = turned & self._shrinkage.zero_within(iterations)
        with thinned(self.handles, split_by_handle(~zero, self.handles)):
            try:
                return remaining_parts(solver.net)
            except RunError:
                return None

    def _cut(self, solver: Solver, goal: Goal) -> None:
        """Zeroes the groups that the penalty would zero next, as many as the target needs; keeps the largest of each kind."""
        handles = [handle for handle in goal.handles if not handle.ended]
        order = [relative_norms(handle, self.floor) for handle in handles]
        last = self._time_to_target(solver, goal, handles, order)
        found, count = goal.found(), 0
        for handle, times in zip(handles, order):
            count += int(np.count_nonzero(handle.norms()[times <= last]))
            handle.clear(times <= last)
        now = remaining_parts(solver.net)
        goal.remaining = self._remaining(goal, solver.net, now)
        self.tell(
            f"iteration {solver.iter}: {found}, not {goal.wanted(short=True)}: the {count:,} smallest groups are removed"
        )
        met = goal.remaining <= goal.target and self._is_confirmed(solver, goal, now)
        self._finish(solver, goal, MET if met else GIVEN_UP)

    def _finish(self, solver: Solver, goal: Goal, status: int) -> None:
        goal.status = status
        end = "zeros are kept from here on, and the remaining weights are fine-tuned"
        found = f"iteration {solver.iter}: {goal.found()}"
        if status == MET:
            self.tell(f"{found}, the target is met: {end}")
        else:
            needed = schedule.iterations_needed(solver.iter, goal.target, goal.remaining)
            self.tell(
                f"{found}, not {goal.wanted(short=True)}: the run is too short; about "
                f"{needed:,} iterations or --cut may reach it; {end}"
            )
        for handle in goal.handles:
            if not handle.ended:
                handle.end(solver)
        self._keep_zeros_at_end(solver)

    def _keep_zeros_at_end(self, solver: Solver) -> None:
        """Freezes the zeros of all penalised parameters when all goals have ended, if the net has a target of its own."""
        if all(goal.status for goal in self.goals) and not self.goals[-1].layer:
            solver.keep_zeros()

    def _end_held(self, solver: Solver, handles: Sequence[PenaltyHandle]) -> None:
        """Ends the penalties whose last groups are kept, and reports it."""
        for handle in handles:
            if not handle.ended:
                handle.end(solver)
            names = ", ".join(sorted(handle.layers))
            self.tell(f"iteration {solver.iter}: the last groups of {names} are kept: the net cannot run without them")

    def _turn(self) -> None:
        for goal in self.goals:
            for handle in goal.handles:
                handle.scale(math.exp(goal.log_factor))

    def _remaining(self, goal: Goal, net: Net, parts: list[RemainingPart]) -> float:
        """Remaining fraction of the cost that the goal limits."""
        if self._latency is not None:
            return self._latency.remaining_time(parts)
        if not goal.layer:
            return remaining_share(self._costs, parts)
        i = net.layer_names.index(goal.layer)
        return remaining_share(self._costs[i : i + 1], parts[i : i + 1])

    def _time_to_target(
        self, solver: Solver, goal: Goal, handles: Sequence[PenaltyHandle], times: list[np.ndarray]
    ) -> float:
        def is_met() -> bool:
            try:
                return self._remaining(goal, solver.net, remaining_parts(solver.net)) <= goal.target
            except RunError:
                return True

        return time_to_target(handles, times, is_met)

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """The state of the controller for a snapshot."""
        loss, groups = self._loss, self._shrinkage
        return {
            "goals": np.array([[goal.log_factor, goal.status, goal.remaining] for goal in self.goals]),
            "ended": np.array([handle.ended for handle in self.handles], np.float64),
            "losses": np.array([loss.smoothed, loss.lowest, loss.collapsed, groups.checks, self._benchmarked]),
            "spares": self._guard.state(),
            "norms": groups.norms,
            "speeds": groups.rates,
            **(self._latency.state() if self._latency is not None else {}),
            **(self._floor_state() if self.floor else {}),
        }

    def _floor_state(self) -> dict[str, np.ndarray]:
        spared = [np.zeros(h.count, np.bool_) if h.spared is None else h.spared for h in self.handles]
        return {"floor": np.array([self.floor]), "spared": np.concatenate(spared).astype(np.float64)}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets the state from a snapshot, which ``start`` then restores; empty if the run had no targets before."""
        self._saved = state or None

    def _resume(self, solver: Solver, state: Mapping[str, np.ndarray]) -> None:
        """Restores the state from a snapshot. raises WeightsError if it was written for other targets"""
        if self.floor:
            self.floor = float(state["floor"][0]) if "floor" in state else 0.0
        if self.targets.of == "speedup" and {"left", "seconds", "correction"} <= state.keys():
            self._latency = LatencyModel.of_state(state, len(solver.net.layers))
        sizes = {name: array.size for name, array in self.state().items()}
        if sizes != {name: state[name].size for name in sizes if name in state}:
            raise WeightsError(
                "the snapshot was written for other targets",
                path=solver.last_snapshot,
                hint="use the original options to continue it, or --weights to start again from its weights",
            )
        for goal, (log_factor, status, remaining) in zip(self.goals, state["goals"].reshape(-1, 3).tolist()):
            goal.log_factor, goal.status, goal.remaining = log_factor, int(status), remaining
        smoothed, lowest, collapsed, checks, benchmarked = state["losses"].tolist()
        self._loss, self._benchmarked = LossWatch(smoothed, lowest, collapsed), int(benchmarked)
        norms, rates = (np.array(state[name], np.float64).reshape(-1) for name in ("norms", "speeds"))
        self._shrinkage = Shrinkage(norms, rates, int(checks))
        self._guard.set_state(state["spares"])
        if self.floor:
            for handle, spared in zip(self.handles, split_by_handle(state["spared"] > 0, self.handles)):
                handle.spared = spared if handle.penalized.coupled else None
        for handle, ended in zip(self.handles, state["ended"]):
            if ended:
                handle.end(solver)
        self._keep_zeros_at_end(solver)
