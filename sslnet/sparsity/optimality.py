"""Optimality certificates: the distance of the weights from a stationary point, and the smallest strength at which all
groups are zero.

At a stationary point of loss + weight decay + penalty, minus the gradient of the smooth part lies in the penalty's
subdifferential. For the group lasso with a group w of strength s, over all its parameters, and its part g of the gradient:
g = -s * w / ||w||, or ||g|| <= s if w is zero. The residual is the displacement of a proximal step, divided by the step,
in the limit of short steps:

    (w - prox(w - step * g)) / step    ->    the shortest vector of g + subdifferential

It is defined for overlapping groups, groups with biases and coupled groups as well. The gradient is a mean over batches;
the fewer batches, the more noise is in the residual.

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
    """Residuals of the groups of one kind.

    name       name of the parameter, or of the layer that requested coupled groups
    kind       name of the groups in a prototxt, or the tile size if unnamed, or "coupled"
    residuals  (groups) norm of the residual over each group, divided by its strength
    zero       number of zero groups
    """

    name: str
    kind: str
    residuals: np.ndarray
    zero: int

    @property
    def residual(self) -> float:
        """The largest residual of the groups."""
        return float(self.residuals.max())


@dataclass(frozen=True)
class Certificate:
    """Optimality of the parameters under one penalty: one parameter, and the bias if its groups include it; or all
    parameters that coupled groups span.

    lambda_max  smallest factor of all strengths with which all these groups are zero at a stationary point, the other
                parameters unchanged; 0 if the gradient at zero is zero, as before a ReLU
    """

    groups: list[Groups]
    lambda_max: float

    @property
    def residual(self) -> float:
        """The largest residual over all kinds of groups."""
        return max(groups.residual for groups in self.groups)


def certify(solver: Any, batches: int) -> list[Certificate]:
    """Computes the certificates of a solver's penalties on trained parameters; leaves the solver and its net unchanged.

    batches  number of batches over which the gradient is averaged; one epoch gives the exact gradient
    """
    with undisturbed(solver.net):
        at_weights = _gradients(solver, batches)
        return [_certificate(solver, batches, at_weights, each) for each in solver.penalties if each.trained]


def is_certifiable(solver: Any) -> bool:
    """Whether any trained parameter is under a penalty."""
    return any(each.trained for each in solver.penalties)


def caveats(solver: Any) -> list[str]:
    """Reasons why the residual of this solver's run need not become zero, one sentence each."""
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
    """For each kind of groups, the norm of the residual over each group, divided by its strength.

    penalty            a penalty made by ``exact``
    values, gradients  arrays and gradients of the objective without the penalty, float64, one per parameter
    """
    return penalty.by_strength(penalty.subdifferential_distance(values, gradients))


def _certificate(solver: Any, batches: int, at_weights: dict[int, np.ndarray], penalized: Any) -> Certificate:
    """Computes the certificate of one penalty.  at_weights: gradients at the weights;  penalized: a PenalizedUpdate"""
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
    """The fields ``name`` and ``kind`` of ``Groups`` for each term of the penalty."""
    kinds = []
    for term in penalized.penalty.terms:
        part = term.parts[0]
        param = penalized.members[part.index].param
        kinds.append((term.name, "coupled") if term.coupled else (param.name, _kind(param, part.height, part.width)))
    return kinds


def _kind(param: Any, height: int, width: int) -> str:
    """Name of the groups with this tile, or the tile size if they have no name."""
    names = (name for name, tile in tiles_of(param).items() if tile == (height, width))
    return next(names, f"{height} x {width}")


def _gradients(solver: Any, batches: int) -> dict[int, np.ndarray]:
    """Gradients of loss and weight decay by id of the blob, float64; zero for frozen weights. Every call uses the same
    data."""
    net = solver.net
    states = net.layer_states()
    solver.batches.sum_gradients(batches)
    net.set_layer_states(states)
    trained = (update for update in solver.updates if update.param.lr_mult)
    return {id(update.param.blob): update.smooth_gradient(batches) for update in trained}


@contextmanager
def undisturbed(net: Any) -> Iterator[None]:
    """Context manager that restores the net's parameters and layer states on exit, and clears its gradients."""
    states, values = net.layer_states(), [param.blob.data.copy() for param in net.learnable]
    try:
        yield
    finally:
        net.set_layer_states(states)
        for param, value in zip(net.learnable, values):
            param.blob.data[...] = value
        net.clear_param_diffs()
