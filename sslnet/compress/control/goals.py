"""Goals: one target each, the penalties adjusted to meet it, and texts that describe them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sslnet.compress.control.penalty_handles import PenaltyHandle
from sslnet.compress.control.schedule import START
from sslnet.compress.control.targets import NAMES, Targets
from sslnet.errors import UsageError, suggestion

ON_THE_WAY, MET, GIVEN_UP = range(3)


@dataclass
class Goal:
    """A target for the whole net or for one layer, and the penalties adjusted to meet it.

    of          "flops", "params" or "speedup"
    layer       name of the layer; "" for the whole net
    target      fraction that may remain, 0 to 1
    handles     penalties whose strengths are multiplied by exp(log_factor)
    status      ON_THE_WAY, MET or GIVEN_UP
    remaining   fraction that remained at the last check
    """

    of: str
    layer: str
    target: float
    handles: list[PenaltyHandle] = field(default_factory=list)
    log_factor: float = math.log(START)
    status: int = ON_THE_WAY
    remaining: float = 1.0

    @property
    def name(self) -> str:
        """Name of the limited cost: FLOPs, parameters or time."""
        return NAMES[self.of] if not self.layer else f'{NAMES[self.of]} of "{self.layer}"'

    def wanted(self, short: bool = False) -> str:
        """Text that describes the target."""
        if self.of == "speedup":
            return f"{1 / self.target:.3g} times" if short else f"a speedup of {1 / self.target:.3g}"
        return f"{100 * self.target:.3g} %" if short else f"{100 * self.target:.3g} % of the {self.name}"

    def found(self) -> str:
        """Text that describes the remaining fraction."""
        if self.of == "speedup":
            return f"the compacted net runs about {1 / self.remaining:.2f} times as fast"
        return f"{100 * self.remaining:.1f} % of the {self.name} remain"


def make_goals(targets: Targets) -> list[Goal]:
    """Makes the goals of the layers, then that of the net if it has a target."""
    goals = [Goal(targets.of, layer, part) for layer, part in targets.layers.items()]
    return goals + ([Goal(targets.of, "", targets.part)] if targets.part is not None else [])


def share_out(goals: Sequence[Goal], handles: Sequence[PenaltyHandle], layer_names: Sequence[str]) -> None:
    """Assigns each handle to one goal: to that of the first layer with its weights, else to the net's.  [changes goals]

    raises UsageError for a layer that the net does not have, or that gets no handle
    """
    taken: list[PenaltyHandle] = []
    for goal in goals:
        if goal.layer and goal.layer not in layer_names:
            hint = suggestion(goal.layer, layer_names)
            raise UsageError(f'a target for the layer "{goal.layer}", which the net does not have', hint=hint)
        goal.handles = [h for h in handles if (goal.layer in h.layers or not goal.layer) and h not in taken]
        if goal.layer and not goal.handles:
            other = next((g.layer for g in goals for h in g.handles if goal.layer in h.layers), None)
            why = f'shares its groups with "{other}"' if other else "has no group lasso with proximal updates"
            raise UsageError(f'a target for the layer "{goal.layer}", which {why}')
        taken += goal.handles
