"""Finds the parameters under each penalty, and updates them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, takewhile
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from sslnet.solver.coupled_groups import FoundGroups, coupled_groups
from sslnet.solver.parameter_update import Update
from sslnet.sparsity.group_penalty import GroupPart
from sslnet.sparsity.groups import matrix_shape, tilings_of
from sslnet.sparsity.penalties import PENALTIES, tiled_penalty
from sslnet.sparsity.penalty import Penalty
from sslnet.sparsity.penalty_sum import PenaltySum


class PenalizedUpdate:
    """Updates the parameters under one penalty: each by its own rule, then one proximal step for all.

    members  the updates of one parameter, of a parameter and the bias in its groups, or of all that coupled groups share
    name     the name of the penalty's state in snapshots
    """

    def __init__(self, members: Sequence[Update], penalty: Penalty, name: str) -> None:
        self.members = list(members)
        self.penalty = penalty
        self.name = name
        solver = self.members[0].solver
        self.by_prox = solver.group_lasso_update == pb.SolverParameter.PROXIMAL
        """Whether the penalty acts by proximal steps; otherwise it acts by its subgradient."""
        for update in self.members:
            if self.by_prox and solver.group_lasso_memory:
                update.mean = np.zeros(update.param.blob.shape, update.param.blob.dtype)

    def __call__(self, iteration: int, learning_rate: float, scale: float) -> None:
        """Makes one step of all members; see ``Update.__call__``."""
        now = (iteration, learning_rate, scale)
        if not self.moves(learning_rate):
            return
        if not self.by_prox:
            self.members[0](*now, self.penalty)
        elif len(self.members) > 1 or not self.members[0].step_and_prox(*now, self.penalty):
            for update in self.members:
                update.step(*now)
            steps = [update.step_size(learning_rate) for update in self.members]
            self.penalty.prox(self.arrays, steps, [update.displacement for update in self.members])
            for update in self.members:
                update.after_prox()

    def moves(self, learning_rate: float) -> bool:
        """Whether any member has a local rate that is not zero."""
        return any(update.rate(learning_rate) != 0 for update in self.members)

    @property
    def trained(self) -> bool:
        """Whether any member is trained (``lr_mult`` is not 0)."""
        return any(update.param.lr_mult for update in self.members)

    @property
    def coupled(self) -> bool:
        """Whether any of the groups are coupled."""
        return any(term.coupled for term in self.penalty.terms)

    @property
    def arrays(self) -> list[np.ndarray]:
        return [update.param.blob.data for update in self.members]

    @property
    def matrices(self) -> list[np.ndarray]:
        return self.penalty.matrices(self.arrays)

    def value(self) -> float:
        """Current value of the penalty, as added to the objective."""
        return self.penalty.value(self.arrays)

    def idle(self) -> list[str]:
        """Reasons why groups of some kind are not penalised at all, one sentence each."""
        found = ((term, term.idle(self.matrices)) for term in self.penalty.terms)
        return [f"{self.members[term.parts[0].index].param.name}: {why}" for term, why in found if why]

    def forget_frozen(self) -> None:
        """Resets the dual variables if any member has frozen weights."""
        if any(update.keep is not None for update in self.members):
            self.penalty.set_state([])

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """State of the penalty that a resumed run needs, by name."""
        return {f"dual/{self.name}/{k}": dual for k, dual in enumerate(self.penalty.state())}

    def set_state(self, arrays: dict[str, np.ndarray]) -> None:
        names = (f"dual/{self.name}/{k}" for k in count())
        self.penalty.set_state([arrays[name] for name in takewhile(arrays.__contains__, names)])


def penalize(updates: Sequence[Update], net: Net | None, solver: Definition) -> list[PenalizedUpdate]:
    """Makes the penalties on the parameters of these updates: first those without coupled groups, then the others.

    net     the net in which coupled groups are found; None: no coupled groups
    raises  DefinitionError for groups and penalties that are not supported
    """
    own = [found for update in updates for found in _own_groups(update, updates, solver)]
    shared = coupled_groups(net, updates, solver) if net is not None else []
    found = [_penalized(members, kinds) for members, kinds in _components([*shared, *own], updates)]
    return sorted(found, key=lambda each: each.coupled)


def steps_of(updates: Sequence[Update], penalties: Sequence[PenalizedUpdate]) -> list[Update | PenalizedUpdate]:
    """The updates to call in an iteration, such that each parameter is updated exactly once."""
    members = {id(update) for each in penalties for update in each.members}
    return [*(update for update in updates if id(update) not in members), *penalties]


def _own_groups(update: Update, updates: Sequence[Update], solver: Definition) -> Iterator[FoundGroups]:
    """The groups within one parameter, or within a parameter and its bias."""
    tilings = tilings_of(update.param, solver)
    rows, columns = matrix_shape(update.param.blob.shape)
    for tiling in tilings:
        groups = (rows // tiling.height) * (columns // tiling.width)
        found = FoundGroups(f"{update.param.name} {tiling.name}", np.broadcast_to(np.float64(tiling.strength), groups))
        found.penalty, found.settings, found.unit, found.tiling = tiling.penalty, tiling.settings, tiling.unit, tiling
        found.parts.append((update, tiling.height, tiling.width, None))
        if tiling.bias and update.param.lr_mult:
            found.parts.append((_bias_of(update.param, updates, solver), 1, 1, None))
        yield found


def _bias_of(param: Any, updates: Sequence[Update], solver: Definition) -> Update:
    """The update of the bias of the layer whose weights are ``param``. raises DefinitionError if it cannot be in groups"""
    found = [update for update in updates if update.param.layer is param.layer and update.param.index == 1]
    if not found:
        raise _bias_error(param, "is shared with another layer")
    (bias,) = found
    if not bias.param.lr_mult:
        raise _bias_error(param, "is not trained, its lr_mult is 0")
    if tilings_of(bias.param, solver):
        raise _bias_error(param, "has a group lasso of its own")
    return bias


def _bias_error(param: Any, why: str) -> DefinitionError:
    message = f"the groups of {param.name} cannot include the bias: it {why}"
    return DefinitionError(message, span=param.span("group_lasso"), layer=param.layer.name)


def _components(
    found: Sequence[FoundGroups], updates: Sequence[Update]
) -> Iterator[tuple[list[Update], list[FoundGroups]]]:
    """Connected components: the kinds of groups that share parameters, and these parameters in net order."""
    left = list(found)
    while left:
        members: set[int] = set()
        taken: list[FoundGroups] = []
        waiting = [left[0]]
        while waiting:
            kind = waiting.pop()
            if kind in taken:
                continue
            taken.append(kind)
            members |= {id(part[0]) for part in kind.parts}
            waiting += [other for other in left if other not in taken and any(id(p[0]) in members for p in other.parts)]
        left = [kind for kind in left if kind not in taken]
        yield [update for update in updates if id(update) in members], taken


def _penalized(members: list[Update], kinds: list[FoundGroups]) -> PenalizedUpdate:
    """Makes the update of parameters under these kinds of groups. raises DefinitionError if the prox of their sum is
    not known"""
    _check_convex(members, kinds)
    tilings = [kind.tiling for kind in kinds if kind.tiling is not None]
    blob = members[0].param.blob
    if len(tilings) == len(kinds):
        return PenalizedUpdate(
            members, tiled_penalty(matrix_shape(blob.shape), tilings, blob.dtype), members[0].param.name
        )
    kinds = sorted(kinds, key=lambda kind: kind.tiling is not None)
    index = {id(update): k for k, update in enumerate(members)}
    terms = [
        PENALTIES[kind.penalty](
            kind.name,
            [GroupPart(index[id(update)], height, width, groups) for update, height, width, groups in kind.parts],
            kind.strengths,
            coupled=kind.tiling is None,
            makers=kind.makers,
            unit=kind.unit,
            settings=dict(kind.settings),
        )
        for kind in kinds
    ]
    shapes = [matrix_shape(update.param.blob.shape) for update in members]
    name = f"coupled {'+'.join(term.name for term in terms)}"
    return PenalizedUpdate(members, PenaltySum(shapes, terms), name)


def _check_convex(members: Sequence[Update], kinds: Sequence[FoundGroups]) -> None:
    """Raises DefinitionError if a non-convex penalty shares its parameters with another one."""
    concave = [kind for kind in kinds if not PENALTIES[kind.penalty].CONVEX]
    if concave and len(kinds) > 1:
        param = concave[0].parts[0][0].param
        raise DefinitionError(
            f"{param.name} has groups under {concave[0].penalty}, and groups of another kind share its weights or "
            "those coupled to them: the proximal step of their sum is not known",
            span=param.span("group_lasso"),
            layer=param.layer.name,
            hint="keep one of them, or use GROUP_LASSO or SPARSE_GROUP_LASSO for all",
        )
