"""Certificates of a group lasso: how far the weights are from a stationary point, and the strength that leaves none.

At a stationary point of loss + weight decay + penalty, minus the gradient of the smooth part lies in the penalty's
subdifferential: for a group w of strength s, and its part g of the gradient, g = -s * w / ||w||, or ||g|| <= s where w is
zero. The residual is what a proximal step from there moves, by its length, for steps that go to zero:

    (w - prox(w - step * g)) / step    ->    the shortest vector of g + subdifferential

It serves overlapping groups and groups with biases as well. The net's gradient is the mean over batches; the fewer, the
more of their noise is in the residual.

Ref: Beck and Teboulle 2009 (the step as a measure of optimality); Tibshirani et al. 2012, "Strong Rules", section 2
(lambda_max)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslnet.penalties import MAX_SWEEPS, Penalty

TOLERANCE = 1e-6
SHORT = 1e-4
"""Length of the step by that of the shortest group which is not zero."""
SHORTEST = 1e-6
"""Groups shorter than this part of the longest do not make the step shorter: differences would drown in rounding."""
HALVINGS = 14
"""How often the range in which lambda_max lies is halved."""
SMALL = 1e-3
"""A residual that counts as none when lambda_max is sought, by the strength."""
ROUNDS = 20
"""How often a prox of several tilings goes on where it had to stop."""


@dataclass(frozen=True)
class Certificate:
    """Of one parameter under a penalty.

    residuals   for each tiling, the norm of the residual over each of its groups, by the tiling's strength
    groups      how many there are, over all tilings; zero: how many of them are zero
    lambda_max  by how much all strengths must be multiplied so that the whole parameter is zero at a stationary point, all
                others as they are; 0 where no gradient comes through at zero, as before a ReLU
    """

    name: str
    residuals: list[np.ndarray]
    groups: int
    zero: int
    lambda_max: float

    @property
    def residual(self) -> float:
        """The largest of all."""
        return max(float(residual.max()) for residual in self.residuals)


def certify(solver: Any, batches: int) -> list[Certificate]:
    """A certificate for each trained parameter of a solver that has a penalty. Leaves the solver and its net as they are.

    batches  over which the gradient is averaged: those of one epoch for the exact one
    """
    updates = [update for update in solver.updates if update.penalty is not None and update.param.lr_mult]
    with _undisturbed(solver.net):
        at_weights = _gradients(solver, batches)
        result = []
        for update in updates:
            penalty = exact(update.penalty)
            blobs = _blobs(update)
            values = [blob.data.astype(np.float64) for blob in blobs]
            residuals = kkt(penalty, values, [at_weights[id(blob)] for blob in blobs])
            for blob in blobs:
                blob.data[...] = 0
            at_zero = _gradients(solver, batches)
            for blob, value in zip(blobs, values):
                blob.data[...] = value
            norms = [penalty.norms(values[0], k, *values[1:]) for k in range(len(penalty.tilings))]
            result.append(
                Certificate(
                    update.param.name,
                    residuals,
                    sum(norm.size for norm in norms),
                    sum(int((norm == 0).sum()) for norm in norms),
                    lambda_max(penalty, [at_zero[id(blob)] for blob in blobs]),
                )
            )
    return result


def exact(penalty: Penalty) -> Penalty:
    """The penalty in float64, its duals to TOLERANCE."""
    return Penalty(penalty.shape, penalty.tilings, np.float64, TOLERANCE)


def kkt(penalty: Penalty, values: list[np.ndarray], gradients: list[np.ndarray]) -> list[np.ndarray]:
    """For each tiling the norm of the residual over its groups, by its strength.

    values, gradients  float64: of the weights, then of the bias that the groups take along if they do; the gradients of all
                       but the penalty
    """
    norms = [penalty.norms(values[0], k, *values[1:]) for k in range(len(penalty.tilings))]
    lengths = np.concatenate([norm[norm > 0] for norm in norms])
    shortest = max(lengths.min(), SHORTEST * lengths.max()) if lengths.size else 1.0
    longest = max(np.linalg.norm(gradients[0]), sum(tiling.strength for tiling in penalty.tilings))
    step = float(SHORT * shortest / longest)
    moved = _proxed(penalty, [value - step * gradient for value, gradient in zip(values, gradients)], step)
    residuals = [(value - new) / step for value, new in zip(values, moved)]
    return [penalty.norms(residuals[0], k, *residuals[1:]) / t.strength for k, t in enumerate(penalty.tilings)]


def lambda_max(penalty: Penalty, gradients: list[np.ndarray]) -> float:
    """The least factor of all strengths with which zero is a stationary point, given the gradients at zero.

    Of a single tiling it is the largest norm of a group by its strength. Of several it is no more than what any of them
    needs alone, if that reaches all weights and biases; zero is a stationary point where the prox of minus the gradient is 0.
    Then it is found to about SMALL.
    """
    alone = [
        float(penalty.norms(gradients[0], k, *gradients[1:]).max()) / tiling.strength
        for k, tiling in enumerate(penalty.tilings)
    ]
    if len(alone) == 1 or not any(gradient.any() for gradient in gradients):
        return max(alone)
    low = 0.0
    high = min(norm for norm, tiling in zip(alone, penalty.tilings) if tiling.bias or not penalty.takes_bias)
    for _ in range(HALVINGS):
        factor = (low + high) / 2
        left = _proxed(penalty, [-gradient for gradient in gradients], factor)
        norms = (penalty.norms(left[0], k, *left[1:]).max() / t.strength for k, t in enumerate(penalty.tilings))
        if max(norms) > SMALL * factor:
            low = factor
        else:
            high = factor
    return high


def _proxed(penalty: Penalty, values: list[np.ndarray], step: float) -> list[np.ndarray]:
    """The prox with one step for all."""
    penalty.set_state([])
    for _ in range(ROUNDS):
        result = [value.copy() for value in values]
        penalty.prox(result[0], step, None, result[1] if len(result) > 1 else None, step)
        if penalty.sweeps < MAX_SWEEPS:
            break
    return result


def _blobs(update: Any) -> list[Any]:
    return [each.param.blob for each in (update, update.bias) if each is not None]


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
def _undisturbed(net: Any) -> Iterator[None]:
    """Whatever runs inside, the net's parameters and states are afterwards what they were."""
    states, values = net.layer_states(), [param.blob.data.copy() for param in net.learnable]
    try:
        yield
    finally:
        net.set_layer_states(states)
        for param, value in zip(net.learnable, values):
            param.blob.data[...] = value
        net.clear_param_diffs()
