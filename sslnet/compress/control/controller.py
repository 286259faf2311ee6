"""Steering a run to a target: strengths of penalties are turned while it trains, until the compacted net is small enough.

While the structure is learned, what is left is led along target^(t / LEARN), t the part of the run that has passed. Groups
take time to die: what will be left a little later is foreseen from how fast each group gets shorter, and where that is
more than it should be the strengths grow, where less they shrink. Once the target is met, what is zero stays zero, the
penalties go, and what is left of the run fine-tunes the rest.

What keeps the net alive: strengths shrink while the loss has risen too far towards that of a net which has lost its
layers; the last rows of a layer without which the net would be cut in two stay (``sslnet.compress.control.collapse_guard``); a target that is not
met at GIVE_UP is given up, with an estimate of the iterations that it takes. On request it is not: at LEARN the groups that
the penalty would take next are cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sslnet.compress.control.collapse_guard import Spares
from sslnet.compress.control.estimate import RemainingPart, costs, parts, share
from sslnet.compress.control.latency_model import Clock, Track
from sslnet.compress.control.penalty_handles import Lever, find_levers, thinned
from sslnet.compress.control.targets import NAMES, Targets
from sslnet.compress.evaluation import find_trial
from sslnet.errors import RunError, UsageError, WeightsError, suggestion
from sslnet.net.net import Net
from sslnet.solver import lr_policies
from sslnet.sparsity.optimality import undisturbed

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

LEARN, GIVE_UP = 0.6, 0.8
"""Parts of the run: in which the structure is learned, and at which a target that is not met is given up."""
CHECKS, LEAST = 300, 3
"""Checks in a run, and iterations between two of them at least."""
START = 0.3
"""Factor of the strengths at the beginning: all is alive then, and what dies first should not be chance."""
HASTE = 10
"""But no group may die so many times as fast as is needed."""
GAIN, MOST = 1.5, 10.5
"""Change of the factor's logarithm at a check by that of what is left over what should be; and at most, in a whole run."""
STEEPEST = 0.05
"""And at most in an iteration."""
CLOSE = 0.95
"""The part of the target that is aimed at, so that it is met for sure."""
AHEAD, NEAR = 0.06, 20
"""Part of the run that is foreseen, and iterations at least: momentum carries groups on for so long."""
SHORTEST = 50
"""Iterations that no group is to die in, however short the run is."""
MEMORY = 0.7
"""Of the speeds at which groups get shorter, from check to check."""
LOST = 0.35
"""Strengths shrink while the net has lost this part of what it had learned, by its loss."""
SMOOTH = 20
"""Iterations over which the loss is smoothed for that; in short runs a fiftieth of them, 5 at least."""
RACES = 5
"""Checks at least from one race to the next."""


@dataclass
class Goal:
    """A target, of the whole net or of a layer (by name), and what is turned for it.

    status   0 on the way, 1 met, 2 given up
    """

    layer: str
    target: float
    levers: list[Lever] = field(default_factory=list)
    log_factor: float = math.log(START)
    status: int = 0
    left: float = 1.0


class StrengthController:
    """Turns a solver's strengths until a net is left with what targets say.

    Layers with targets are steered each by itself. Where the net has none, layers without one keep their strengths.

    tell  called with a line when something happens
    """

    def __init__(self, targets: Targets, tell: Callable[[str], None] = lambda line: None) -> None:
        self.targets, self.tell = targets, tell
        self.goals = [Goal(layer, part) for layer, part in targets.layers.items()]
        self.goals += [Goal("", targets.part)] if targets.part is not None else []
        self.levers: list[Lever] = []
        self.loss = self.best = self.dead = math.nan
        """Smoothed; the lowest so far; of the net without what levers can take."""
        self._spares = Spares([])
        self._norms = self._speeds = np.zeros(0)
        self._checks = self._raced = 0
        self._clock: Clock | None = None
        self._saved: Mapping[str, np.ndarray] | None = None

    # -- what others see ---------------------------------------------------------------------------------------------

    @property
    def met(self) -> bool:
        """Whether all targets are met."""
        return all(goal.status == 1 for goal in self.goals)

    @property
    def left(self) -> float:
        """What is left of the net, or of the last layer that has a target."""
        return self.goals[-1].left

    @property
    def factor(self) -> float:
        """By which the strengths are multiplied now."""
        return math.exp(self.goals[-1].log_factor)

    @property
    def name(self) -> str:
        return NAMES[self.targets.of]

    def missed(self) -> str:
        """Which targets were not met, in words; "" when all were."""
        return "; ".join(f"{self._found(g)}, not {self._wanted(g, short=True)}" for g in self.goals if g.status != 1)

    def _of(self, goal: Goal) -> str:
        return f'the {self.name} of "{goal.layer}"' if goal.layer else f"the {self.name}"

    def _wanted(self, goal: Goal, short: bool = False) -> str:
        if self.targets.of == "speedup":
            return f"{1 / goal.target:.3g} times" if short else f"a speedup of {1 / goal.target:.3g}"
        return f"{100 * goal.target:.3g} %" if short else f"{100 * goal.target:.3g} % of {self._of(goal)}"

    def _found(self, goal: Goal) -> str:
        if self.targets.of == "speedup":
            return f"the compacted net runs about {1 / goal.left:.2f} times as fast"
        return f"{100 * goal.left:.1f} % of {self._of(goal)} remain"

    # -- beginning ---------------------------------------------------------------------------------------------------

    def start(self, solver: Solver) -> None:
        """To be called before the first iteration, and after a snapshot has been restored.

        raises UsageError for a layer that is not there or has no groups, and for a target that no groups can reach
        """
        self.levers = find_levers(solver)
        if not self.levers and self._saved is None:
            raise UsageError(
                "a target needs a group lasso with proximal updates: no parameter of the net has one",
                hint="set strengths in the solver and multipliers in the net: docs/prototxt.md",
            )
        self._costs = costs(solver.net, self.targets.of) if self.targets.of != "speedup" else []
        self._share_out(solver)
        self._spares = Spares(self.levers)
        if self._saved is None:
            self._begin(solver)
        else:
            self._go_on(solver, self._saved)
        self._turn()

    def _share_out(self, solver: Solver) -> None:
        """Which levers each goal turns: layers those of their weights, the net all that are left."""
        taken: list[Lever] = []
        for goal in self.goals:
            if goal.layer and goal.layer not in solver.net.layer_names:
                hint = suggestion(goal.layer, solver.net.layer_names)
                raise UsageError(f'a target for the layer "{goal.layer}", which the net does not have', hint=hint)
            goal.levers = [lv for lv in self.levers if (goal.layer in lv.layers or not goal.layer) and lv not in taken]
            if goal.layer and not goal.levers:
                other = next((g.layer for g in self.goals for lv in g.levers if goal.layer in lv.layers), None)
                why = f'shares its groups with "{other}"' if other else "has no group lasso with proximal updates"
                raise UsageError(f'a target for the layer "{goal.layer}", which {why}')
            taken += goal.levers

    def _begin(self, solver: Solver) -> None:
        self._spares.choose()
        self._norms = self._all_norms()
        self._speeds = np.zeros_like(self._norms)
        if self.targets.of == "speedup":
            self.tell("measuring how the time of each layer depends on its remaining channels")
            self._clock = Clock.measure(
                solver, self.levers, Track(find_trial(solver.definition, solver.seed), self.targets.batch)
            )
        rate, _ = lr_policies.learning_rate(solver.param, solver.iter, solver.current_step)
        learning = max(SHORTEST, int(LEARN * solver.param.max_iter))
        for goal in self.goals:
            self._check_reachable(goal, solver)
            lives = [_lives(lever, rate) for lever in goal.levers]
            if all(life is not None for life in lives):
                life = self._time_to_target(solver, goal, goal.levers, [life for life in lives if life is not None])
                alone = max(life, 1e-9) / learning  # with it the penalty alone would do, at the end of LEARN
                goal.log_factor = math.log(max(alone, min(START, HASTE * alone)))

    def _check_reachable(self, goal: Goal, solver: Solver) -> None:
        """raises UsageError when even a group for each lever leaves more than the target"""
        with thinned(goal.levers, [lever.first(0) for lever in goal.levers]):
            try:
                least = self._left(goal, solver.net, parts(solver.net))
            except RunError:
                return
        if least <= goal.target:
            return
        rest = f"{100 * least:.3g} % remain even if each layer with groups keeps only one of them"
        if self._clock is not None:
            rest = f"with one group left in each layer it would be about {1 / least:.3g}"
        raise UsageError(
            f"{self._wanted(goal)} cannot be reached: {rest}",
            hint="choose a milder target, or declare groups on more layers",
        )

    # -- on the way --------------------------------------------------------------------------------------------------

    def after_iteration(self, solver: Solver) -> None:
        if all(goal.status for goal in self.goals):
            return
        self._watch_loss(solver)
        lost = self._spares.lost()
        if lost:
            self._tell_held(solver, self._spares.rescue(solver, lost))
        if solver.iter % self._every(solver) == 0:
            self._check(solver)

    @staticmethod
    def _every(solver: Solver) -> int:
        return max(LEAST, solver.param.max_iter // CHECKS)

    def _watch_loss(self, solver: Solver) -> None:
        loss = solver.net.loss
        if math.isnan(self.loss):
            self.loss = self.best = loss
            self.dead = self._dead_loss(solver)
        self.loss += (loss - self.loss) / min(SMOOTH, max(5, solver.param.max_iter / 50))
        self.best = min(self.best, self.loss)

    def _dead_loss(self, solver: Solver) -> float:
        """That of a net which has lost all that the levers can take, on the next batch."""
        with undisturbed(solver.net), thinned(self.levers, [np.zeros(lever.count, np.bool_) for lever in self.levers]):
            solver.net.forward()
            return float(solver.net.loss)

    def _check(self, solver: Solver) -> None:
        every, run = self._every(solver), solver.param.max_iter
        before, self._norms = self._norms, self._all_norms()
        self._speeds = MEMORY * self._speeds + (1 - MEMORY) * (before - self._norms) / every
        self._checks += 1
        now = parts(solver.net)
        self._tell_held(solver, self._spares.last(solver.net))
        self._spares.choose()
        soon = self._foreseen(solver, max(NEAR, AHEAD * run))
        for goal in self.goals:
            if goal.status:
                continue
            goal.left = self._left(goal, solver.net, now)
            if goal.left <= goal.target and self._holds(solver, goal, now):
                self._finish(solver, goal, 1)
            elif self.targets.cut and solver.iter >= LEARN * run:
                self._cut(solver, goal)
            elif solver.iter >= GIVE_UP * run:
                self._finish(solver, goal, 2)
            else:
                self._steer(solver, goal, soon, every * min(STEEPEST, MOST / run))
        self._turn()

    def _steer(self, solver: Solver, goal: Goal, soon: list[RemainingPart] | None, most: float) -> None:
        passed = solver.iter / solver.param.max_iter
        foreseen = self._left(goal, solver.net, soon) if soon is not None else 0.0
        ends = (goal.left, passed), (foreseen, passed + AHEAD)
        now, then = (math.log(max(found, 0.1 * goal.target)) - self._wanted_log(goal, time) for found, time in ends)
        trust = max(0.0, min(0.5, 1 - passed / LEARN))  # at the end only what is really gone counts
        move = GAIN * ((1 - trust) * now + trust * then)
        if self.loss > self.best + LOST * max(0.0, self.dead - self.best):
            move = -2 * most
        goal.log_factor += min(most, max(-2 * most, move))

    @staticmethod
    def _wanted_log(goal: Goal, passed: float) -> float:
        """Logarithm of what should be left when so much of the run has passed."""
        return min(1.0, passed / LEARN) * math.log(CLOSE * goal.target)

    def _holds(self, solver: Solver, goal: Goal, now: list[RemainingPart]) -> bool:
        """Whether a target that is met by the table is met on the machine."""
        if self._clock is None:
            return True
        if self._raced > 0 and self._checks < self._raced + RACES:
            return False
        self._raced = self._checks
        race = self._clock.race(solver, now, self.targets.batch)
        if race is not None:
            goal.left = 1 / race.speedup
            self.tell(f"iteration {solver.iter}: compacted, the net runs {race}")
        return goal.left <= goal.target

    def _foreseen(self, solver: Solver, iterations: float) -> list[RemainingPart] | None:
        """What is left of the layers in so many iterations; None of a net that will be cut in two."""
        speeds = self._speeds / (1 - MEMORY**self._checks)
        alive = np.repeat([not lever.ended for lever in self.levers], [lever.count for lever in self.levers])
        gone = alive & (self._norms > 0) & (self._norms <= speeds * iterations)
        with thinned(self.levers, self._split(~gone)):
            try:
                return parts(solver.net)
            except RunError:
                return None

    def _cut(self, solver: Solver, goal: Goal) -> None:
        """Takes the groups that the penalty would take next, as many as the target lacks; of each kind the longest stays."""
        levers = [lever for lever in goal.levers if not lever.ended]
        lives = [_shortness(lever) for lever in levers]
        last = self._time_to_target(solver, goal, levers, lives)
        found, gone = self._found(goal), 0
        for lever, life in zip(levers, lives):
            gone += int(np.count_nonzero(lever.norms()[life <= last]))
            lever.clear(life <= last)
        now = parts(solver.net)
        goal.left = self._left(goal, solver.net, now)
        self.tell(
            f"iteration {solver.iter}: {found}, not {self._wanted(goal, short=True)}: the {gone:,} smallest groups are removed"
        )
        met = goal.left <= goal.target and self._holds(solver, goal, now)
        self._finish(solver, goal, 1 if met else 2)

    def _finish(self, solver: Solver, goal: Goal, status: int) -> None:
        goal.status = status
        end = "zeros are kept from here on, and the remaining weights are fine-tuned"
        found = f"iteration {solver.iter}: {self._found(goal)}"
        if status == 1:
            self.tell(f"{found}, the target is met: {end}")
        else:
            self.tell(
                f"{found}, not {self._wanted(goal, short=True)}: the run is too short; about "
                f"{self._needed(solver, goal):,} iterations or --cut may reach it; {end}"
            )
        for lever in goal.levers:
            if not lever.ended:
                lever.end(solver)
        if all(goal.status for goal in self.goals) and not self.goals[-1].layer:
            solver.keep_zeros()

    def _needed(self, solver: Solver, goal: Goal) -> int:
        """An estimate of the iterations of a run that meets a target."""
        ratio = math.log(goal.target) / math.log(min(goal.left, 0.9))
        needed = solver.iter / LEARN * max(1.25, min(10.0, ratio))
        digits = 10 ** max(0, len(str(int(needed))) - 2)
        return math.ceil(needed / digits) * digits

    def _tell_held(self, solver: Solver, levers: Sequence[Lever]) -> None:
        for lever in levers:
            if not lever.ended:
                lever.end(solver)
            names = ", ".join(sorted(lever.layers))
            self.tell(f"iteration {solver.iter}: the last groups of {names} are kept: the net cannot run without them")

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        for goal in self.goals:
            for lever in goal.levers:
                lever.scale(math.exp(goal.log_factor))

    def _left(self, goal: Goal, net: Net, found: list[RemainingPart]) -> float:
        if self._clock is not None:
            return self._clock.share(found)
        if not goal.layer:
            return share(self._costs, found)
        i = net.layer_names.index(goal.layer)
        return share(self._costs[i : i + 1], found[i : i + 1])

    def _all_norms(self) -> np.ndarray:
        return np.concatenate([lever.norms() for lever in self.levers] or [np.zeros(0)])

    def _split(self, flags: np.ndarray) -> list[np.ndarray]:
        return np.split(flags, np.cumsum([lever.count for lever in self.levers])[:-1])

    def _time_to_target(self, solver: Solver, goal: Goal, levers: Sequence[Lever], lives: list[np.ndarray]) -> float:
        """Iterations until the target is met if each group lives for so long; those of the last group where it never is."""
        times = np.unique(np.concatenate(lives))
        times = times[np.isfinite(times)]
        low, high = 0, len(times) - 1
        while low < high:
            middle = (low + high) // 2
            with thinned(levers, [life > times[middle] for life in lives]):
                try:
                    met = self._left(goal, solver.net, parts(solver.net)) <= goal.target
                except RunError:
                    met = True
            low, high = (low, middle) if met else (middle + 1, high)
        return float(times[high]) if len(times) else 0.0

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        return {
            "goals": np.array([[goal.log_factor, goal.status, goal.left] for goal in self.goals]),
            "ended": np.array([lever.ended for lever in self.levers], np.float64),
            "losses": np.array([self.loss, self.best, self.dead, self._checks, self._raced]),
            "spares": self._spares.state(),
            "norms": self._norms if len(self._norms) else self._all_norms(),
            "speeds": self._speeds if len(self._speeds) else self._all_norms(),
            **(self._clock.state() if self._clock is not None else {}),
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Of a snapshot; ``start`` goes on from it, or begins where the run was not steered before."""
        self._saved = state or None

    def _go_on(self, solver: Solver, state: Mapping[str, np.ndarray]) -> None:
        """raises WeightsError for the state of other targets"""
        if self.targets.of == "speedup" and {"left", "seconds", "correction"} <= state.keys():
            self._clock = Clock.of_state(state, len(solver.net.layers))
        mine = self.state()
        if {name: array.size for name, array in mine.items()} != {
            name: state[name].size for name in mine if name in state
        }:
            raise WeightsError(
                "the snapshot was written for other targets",
                path=solver.last_snapshot,
                hint="use the original options to continue it, or --weights to start again from its weights",
            )
        for goal, (log_factor, status, left) in zip(self.goals, state["goals"].reshape(-1, 3).tolist()):
            goal.log_factor, goal.status, goal.left = log_factor, int(status), left
        self.loss, self.best, self.dead, checks, raced = state["losses"].tolist()
        self._checks, self._raced = int(checks), int(raced)
        self._norms, self._speeds = (np.array(state[name], np.float64).reshape(-1) for name in ("norms", "speeds"))
        self._spares.set_state(state["spares"])
        for lever, ended in zip(self.levers, state["ended"]):
            if ended:
                lever.end(solver)
        if all(goal.status for goal in self.goals) and not self.goals[-1].layer:
            solver.keep_zeros()


def _shortness(lever: Lever) -> np.ndarray:
    """(groups) how long each group is, by its strength; the longest of each kind, which is to stay, without end."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(lever.strengths() > 0, lever.norms() / lever.strengths(), np.inf)
    for kind in np.split(found, np.cumsum(lever.sizes)[:-1]):
        kind[kind.argmax()] = np.inf
    return found


def _lives(lever: Lever, rate: float) -> np.ndarray | None:
    """Iterations that each group of a lever lives if nothing but its penalty moves it."""
    speeds = lever.speeds(rate)
    with np.errstate(divide="ignore"):
        return None if speeds is None else lever.norms() / speeds
