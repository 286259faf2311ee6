"""Certificates of a group lasso: how far the weights are from a stationary point, and the strength that leaves none.

At a stationary point of loss + weight decay + penalty, minus the gradient of the smooth part lies in the penalty's
subdifferential: for a group w of strength s, and its part g of the gradient, g = -s * w / ||w||, or ||g|| <= s where w is
zero; w and g are those of all parameters that the group reaches into. The residual is what a proximal step from there
moves, by its length, for steps that go to zero:

    (w - prox(w - step * g)) / step    ->    the shortest vector of g + subdifferential

It serves overlapping groups, groups with biases and coupled groups as well. The net's gradient is the mean over batches;
the fewer, the more of their noise is in the residual.

Ref: Beck and Teboulle 2009 (the step as a measure of optimality); Tibshirani et al. 2012, "Strong Rules", section 2
(lambda_max); Dinkelbach 1967 (the largest of a ratio)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.sparsity.coupled_penalty import CoupledPenalty
from sslnet.sparsity.groups import tiles_of
from sslnet.sparsity.penalties import MAX_SWEEPS, Penalty

TOLERANCE = 1e-6
SHORT = 1e-4
"""Length of the step by that of the shortest group which is not zero."""
SHORTEST = 1e-6
"""Groups shorter than this part of the longest do not make the step shorter: differences would drown in rounding."""
SMALL = 1e-3
"""A residual that counts as none when lambda_max is sought, by the strength."""
RATIOS = 50
"""How often lambda_max is raised at most; mostly a few times are enough."""
ROUNDS = 20
"""How often a prox of several kinds of groups goes on where it had to stop."""

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Groups:
    """The groups of one kind.

    name       of the parameter, or of the layer that asked for coupled groups
    kind       as a prototxt names it, the tile where it has no name, "coupled"
    residuals  (groups) the norm of the residual over each, by its strength
    zero       how many of them are zero
    """

    name: str
    kind: str
    residuals: np.ndarray
    zero: int

    @property
    def residual(self) -> float:
        """The largest of all."""
        return float(self.residuals.max())


@dataclass(frozen=True)
class Certificate:
    """Of the parameters under one penalty: a single one, with its bias where groups take it along; or, where groups are
    coupled, all that coupled groups reach into.

    lambda_max  by how much all its strengths must be multiplied so that all these groups are zero at a stationary point,
                all other parameters as they are; 0 where no gradient comes through at zero, as before a ReLU
    """

    groups: list[Groups]
    lambda_max: float

    @property
    def residual(self) -> float:
        """The largest of all groups."""
        return max(groups.residual for groups in self.groups)


class Regulariser(ABC):
    """A penalty over some arrays in float64, its duals to TOLERANCE: several kinds of groups, which may overlap."""

    strengths: list[Any]
    """For each kind that of all its groups, or one for each of them."""

    @abstractmethod
    def norms(self, values: Arrays) -> Arrays:
        """For each kind the Euclidean norms of its groups."""

    @abstractmethod
    def covered(self, values: Arrays) -> Arrays:
        """For each array which values are in any group."""

    @abstractmethod
    def prox_once(self, values: Arrays, step: float) -> int:
        """The prox with one step for all, duals from where they were; returns the sweeps.  [overwrites values]"""

    @abstractmethod
    def forget(self) -> None:
        """The duals of the next prox start from zero."""

    def value(self, values: Arrays) -> float:
        return float(sum((s * norms).sum() for s, norms in zip(self.strengths, self.norms(values))))

    def by_strength(self, values: Arrays) -> Arrays:
        """Norms by the strengths, flat for each kind; those of no strength count as 0."""
        ratios = []
        for strength, norms in zip(self.strengths, self.norms(values)):
            bottom = np.broadcast_to(strength, norms.shape)
            ratios.append(np.divide(norms, bottom, out=np.zeros(norms.shape), where=bottom > 0).reshape(-1))
        return ratios

    def prox(self, values: Arrays, step: float) -> Arrays:
        for _ in range(ROUNDS):
            result = [value.copy() for value in values]
            if self.prox_once(result, step) < MAX_SWEEPS:
                break
        return result


class Tilings(Regulariser):
    """Of one parameter, and the bias that its groups take along if they do."""

    def __init__(self, penalty: Penalty) -> None:
        self.penalty = Penalty(penalty.shape, penalty.tilings, np.float64, TOLERANCE)
        self.strengths = [tiling.strength for tiling in penalty.tilings]

    def norms(self, values: Arrays) -> Arrays:
        return [self.penalty.norms(values[0], k, *values[1:]) for k in range(len(self.strengths))]

    def covered(self, values: Arrays) -> Arrays:
        return [np.ones(value.shape, np.bool_) for value in values]

    def prox_once(self, values: Arrays, step: float) -> int:
        self.penalty.prox(values[0], step, None, values[1] if len(values) > 1 else None, step)
        return self.penalty.sweeps

    def forget(self) -> None:
        self.penalty.set_state([])


class Families(Regulariser):
    """Of the parameters that coupled groups reach into."""

    def __init__(self, penalty: CoupledPenalty) -> None:
        families = [replace(family, duals=[]) for family in penalty.families]
        self.penalty = CoupledPenalty(penalty.shapes, families, TOLERANCE)
        self.strengths = [family.strengths for family in families]

    def norms(self, values: Arrays) -> Arrays:
        return [self.penalty.norms(values, k) for k in range(len(self.strengths))]

    def covered(self, values: Arrays) -> Arrays:
        inside = [np.zeros(shape) for shape in self.penalty.shapes]
        for family in self.penalty.families:
            for part in family.parts:
                tiles = part.tiles(inside[part.index])
                tiles += part.by_tile(np.ones(len(family.strengths)), 0.0, tiles)
        return [(there > 0).reshape(value.shape) for there, value in zip(inside, values)]

    def prox_once(self, values: Arrays, step: float) -> int:
        self.penalty.prox(values, [step] * len(values))
        return self.penalty.sweeps

    def forget(self) -> None:
        self.penalty.set_state([])


def certify(solver: Any, batches: int) -> list[Certificate]:
    """The certificates of a solver's penalties, of all parameters that are trained. Leaves the solver and its net as they are.

    batches  over which the gradient is averaged: those of one epoch for the exact one
    """
    single = [update for update in solver.updates if update.penalty is not None and update.param.lr_mult]
    with undisturbed(solver.net):
        at_weights = _gradients(solver, batches)
        found = [
            _certificate(solver, batches, at_weights, Tilings(update.penalty), _with_bias(update), _kinds(update))
            for update in single
        ]
        for coupled in solver.coupled:
            arguments = (Families(coupled.penalty), coupled.members, _kinds_coupled(coupled))
            found.append(_certificate(solver, batches, at_weights, *arguments))
    return found


def is_certifiable(solver: Any) -> bool:
    """Whether any parameter that is trained is under a group lasso."""
    return bool(solver.coupled) or any(u.penalty is not None and u.param.lr_mult for u in solver.updates)


def caveats(solver: Any) -> list[str]:
    """Why the residual of this solver's run need not become zero, a sentence each."""
    result = []
    if solver.param.group_lasso_update == pb.SolverParameter.SUBGRADIENT:
        result.append(
            "SUBGRADIENT updates circle around a stationary point, so a residual remains; PROXIMAL updates reach it"
        )
    if any(update.DECOUPLED and update.decay for update in solver.updates):
        result.append("AdamW's weight decay is no part of the objective, so a residual remains")
    if any(update.l1 and update.decay for update in solver.updates):
        result.append("L1 weight decay counts as 0 on weights that are zero; group_lasso { group: ELEMENT } is exact")
    return result


def kkt(penalty: Regulariser, values: Arrays, gradients: Arrays) -> Arrays:
    """For each kind of groups the norm of the residual over each, by its strength.

    values, gradients  float64, of each array; the gradients of all but the penalty
    """
    lengths = np.concatenate([norms[norms > 0] for norms in penalty.norms(values)])
    shortest = max(lengths.min(), SHORTEST * lengths.max()) if lengths.size else 1.0
    pulls = sum(float(np.max(strength)) for strength in penalty.strengths)
    longest = max(*(float(np.linalg.norm(gradient)) for gradient in gradients), pulls)
    step = float(SHORT * shortest / longest)
    penalty.forget()
    moved = penalty.prox([value - step * gradient for value, gradient in zip(values, gradients)], step)
    return penalty.by_strength([(value - new) / step for value, new in zip(values, moved)])


def lambda_max(penalty: Regulariser, gradients: Arrays) -> float:
    """The least factor of all strengths with which zero is a stationary point, given the gradients at zero.

    That is the dual norm of the gradients. Of a single kind of groups it is the largest norm by its strength. Of several
    it is the largest of <-gradient, r> / penalty(r) over all r; from below it is raised to that of r = the prox of minus
    the gradient with the factor so far, until that is zero, to about SMALL.
    """
    inside = [np.where(there, -gradient, 0.0) for there, gradient in zip(penalty.covered(gradients), gradients)]
    if len(penalty.strengths) == 1 or not any(part.any() for part in inside):
        return max(float(ratios.max()) for ratios in penalty.by_strength(inside))
    factor, left = 0.0, inside
    penalty.forget()
    for _ in range(RATIOS):
        before = factor
        product = sum(float(np.vdot(part, rest)) for part, rest in zip(inside, left))
        factor = max(factor, product / penalty.value(left))
        left = penalty.prox(inside, factor)
        excess = max(float(ratios.max()) for ratios in penalty.by_strength(left))
        if excess <= SMALL * factor or factor - before <= TOLERANCE * factor:
            break
    return factor + excess


def _certificate(
    solver: Any,
    batches: int,
    at_weights: dict[int, np.ndarray],
    penalty: Regulariser,
    members: Sequence[Any],
    kinds: Sequence[tuple[str, str]],
) -> Certificate:
    """members: the updates whose parameters are the penalty's arrays; kinds: name and kind of each kind of groups."""
    blobs = [update.param.blob for update in members]
    values = [blob.data.astype(np.float64) for blob in blobs]
    residuals = kkt(penalty, values, [at_weights[id(blob)] for blob in blobs])
    zeros = [int((norms == 0).sum()) for norms in penalty.norms(values)]
    for blob, there in zip(blobs, penalty.covered(values)):
        blob.data[there] = 0
    at_zero = _gradients(solver, batches)
    for blob, value in zip(blobs, values):
        blob.data[...] = value
    largest = lambda_max(penalty, [at_zero[id(blob)] for blob in blobs])
    return Certificate([Groups(*named, r, zero) for named, r, zero in zip(kinds, residuals, zeros)], largest)


def _with_bias(update: Any) -> list[Any]:
    return [each for each in (update, update.bias) if each is not None]


def _kinds(update: Any) -> list[tuple[str, str]]:
    return [(update.param.name, _kind(update.param, t.height, t.width)) for t in update.penalty.tilings]


def _kinds_coupled(coupled: Any) -> list[tuple[str, str]]:
    kinds = []
    for family in coupled.penalty.families:
        part = family.parts[0]
        param = coupled.members[part.index].param
        kinds.append((param.name, _kind(param, part.height, part.width)) if family.own else (family.name, "coupled"))
    return kinds


def _kind(param: Any, height: int, width: int) -> str:
    """The groups of these tiles by their name, else the tile."""
    names = (name for name, tile in tiles_of(param).items() if tile == (height, width))
    return next(names, f"{height} x {width}")


def _gradients(solver: Any, batches: int) -> dict[int, np.ndarray]:
    """Of loss and weight decay, by the identity of the blob, float64; of frozen weights zero. Every call sees the same data."""
    net = solver.net
    states = net.layer_states()
    net.clear_param_diffs()
    for _ in range(batches):
        net.forward()
        net.backward()
    net.set_layer_states(states)
    trained = (update for update in solver.updates if update.param.lr_mult)
    return {id(update.param.blob): update.smooth_gradient(batches) for update in trained}


@contextmanager
def undisturbed(net: Any) -> Iterator[None]:
    """Whatever runs inside, the net's parameters and states are afterwards what they were."""
    states, values = net.layer_states(), [param.blob.data.copy() for param in net.learnable]
    try:
        yield
    finally:
        net.set_layer_states(states)
        for param, value in zip(net.learnable, values):
            param.blob.data[...] = value
        net.clear_param_diffs()
