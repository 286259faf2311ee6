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

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.sparsity.groups import tiles_of
from sslnet.sparsity.penalty import Penalty


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


def certify(solver: Any, batches: int) -> list[Certificate]:
    """The certificates of a solver's penalties, of all parameters that are trained. Leaves the solver and its net as they are.

    batches  over which the gradient is averaged: those of one epoch for the exact one
    """
    with undisturbed(solver.net):
        at_weights = _gradients(solver, batches)
        return [_certificate(solver, batches, at_weights, each) for each in solver.penalties if each.trained]


def is_certifiable(solver: Any) -> bool:
    """Whether any parameter that is trained is under a penalty."""
    return any(each.trained for each in solver.penalties)


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


def kkt(penalty: Penalty, values: list[np.ndarray], gradients: list[np.ndarray]) -> list[np.ndarray]:
    """For each kind of groups the norm of the residual over each, by its strength.

    penalty            an ``exact`` one
    values, gradients  float64, of each array; the gradients of all but the penalty
    """
    return penalty.by_strength(penalty.subdifferential_distance(values, gradients))


def _certificate(solver: Any, batches: int, at_weights: dict[int, np.ndarray], penalized: Any) -> Certificate:
    """penalized: a PenalizedUpdate"""
    penalty = penalized.penalty.exact()
    blobs = [update.param.blob for update in penalized.members]
    values = [blob.data.astype(np.float64) for blob in blobs]
    residuals = kkt(penalty, values, [at_weights[id(blob)] for blob in blobs])
    zeros = [int((norms == 0).sum()) for norms in penalty.norms(values)]
    for blob, there in zip(blobs, penalty.covered(values)):
        blob.data[there] = 0
    at_zero = _gradients(solver, batches)
    for blob, value in zip(blobs, values):
        blob.data[...] = value
    largest = penalty.dual_norm([at_zero[id(blob)] for blob in blobs])
    return Certificate(
        [Groups(*named, r, zero) for named, r, zero in zip(_kinds(penalized), residuals, zeros)], largest
    )


def _kinds(penalized: Any) -> list[tuple[str, str]]:
    """Name and kind of each kind of groups."""
    kinds = []
    for term in penalized.penalty.terms:
        part = term.parts[0]
        param = penalized.members[part.index].param
        kinds.append((term.name, "coupled") if term.coupled else (param.name, _kind(param, part.height, part.width)))
    return kinds


def _kind(param: Any, height: int, width: int) -> str:
    """The groups of these tiles by their name, else the tile."""
    names = (name for name, tile in tiles_of(param).items() if tile == (height, width))
    return next(names, f"{height} x {width}")


def _gradients(solver: Any, batches: int) -> dict[int, np.ndarray]:
    """Gradients of loss and weight decay, by the identity of the blob, float64; of frozen weights zero. Every call sees
    the same data."""
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
