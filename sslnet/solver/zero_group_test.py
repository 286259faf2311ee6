"""Zero-group test (``group_lasso_settle``): zeroes the groups that are non-zero only because of gradient noise.

The minimiser of f + penalty is a fixed point of the proximal step of every length s: w = prox(w - s * gradient of f).
A group whose gradient noise exceeds its strength never reaches zero in a training step, however small the rate, because
noise and threshold are both proportional to the rate. The test takes one long step along the running mean of the
gradients instead,

    z = prox(w - s * mean),   s = AHEAD * step / ((1 - memory) * (1 - momentum))

as far as the mean would move the weights in AHEAD times its memory length, 1 / (1 - memory) iterations; the adaptive
rules have one step size per weight and no factor 1 - momentum. Where z is zero, w and its momentum become zero; all other
weights are unchanged. A group zeroed in error can become non-zero again by training. Where groups overlap, z is the prox
of their sum, computed from the run's dual variables to their tolerance, so a group that is zero only within that
tolerance may remain non-zero.

Ref: Beck and Teboulle 2009 (the fixed point); Lee and Wright 2012, "Manifold Identification in Dual Averaging"
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sslnet.solver.penalized_update import PenalizedUpdate

AHEAD = 2.0
"""Length of the test step, in memory lengths of the mean. On convex problems with small batches, 1 leaves a few groups
too many non-zero, 10 zeroes some too many."""
SAFE = 0.5
"""Limit of the test step for a non-convex penalty, relative to the longest step that preserves minimisers."""


def settle(penalties: Sequence[PenalizedUpdate], iteration: int, learning_rate: float, scale: float) -> None:
    """Tests all groups; call it right after their update.  [overwrites weights and momenta that become zero]

    iteration, learning_rate, scale   as in that update, whose step sizes must still be stored
    """
    for each in penalties:
        if each.moves(learning_rate) and all(update.mean is not None for update in each.members):
            before = [dual.copy() for dual in each.penalty.state()]
            _settle(each, iteration, learning_rate, scale)
            each.penalty.set_state(before)


def _settle(penalized: PenalizedUpdate, iteration: int, learning_rate: float, scale: float) -> None:
    members = penalized.members
    steps = [_shortened(AHEAD * update.long_step(learning_rate), penalized) for update in members]
    means = [update.mean_gradient(iteration, scale) for update in members]
    values = [update.param.blob.data - step * mean for update, step, mean in zip(members, steps, means)]
    penalized.penalty.prox(values, steps)
    for update, value in zip(members, values):
        update.rest(value == 0)


def _shortened(step: float | np.ndarray, penalized: PenalizedUpdate) -> float | np.ndarray:
    """The step, limited such that it preserves the minimisers of a non-convex penalty."""
    longest = SAFE * min(term.longest_step for term in penalized.penalty.terms)
    if math.isinf(longest):
        return step
    return min(step, longest) if isinstance(step, float) else np.minimum(step, step.dtype.type(longest))
