"""Settling: live groups that only the noise of batches keeps beside zero are set to it (``group_lasso_settle``).

The minimiser of f + penalty is a fixed point of the proximal step of every length s: w = prox(w - s * gradient of f). A
training step is so short that a group whose noise is longer than its strength never lands on zero, however small the
rate, for noise and threshold shrink together. A look takes one long step along the running mean of the gradients instead,

    z = prox(w - s * mean),   s = AHEAD * step / ((1 - memory) * (1 - momentum))

which is as far as the mean would move the weights in AHEAD times the iterations that it remembers; the adaptive rules
have steps of each weight's own, and no factor of momentum. Where z is zero w becomes zero, its momentum too; all other
weights stay as they are. What is set to zero without need wakes again. Where groups overlap, z is the prox of their sum,
from the duals of the run and to their tolerance: a group that they hold at zero only within that tolerance may stay.

Ref: Beck and Teboulle 2009 (the fixed point); Lee and Wright 2012, "Manifold Identification in Dual Averaging"
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sslnet.solver.penalized_update import PenalizedUpdate

AHEAD = 2.0
"""Of the memory's length. On convex problems 1 leaves a few groups too many with small batches, 10 takes some too many."""
SAFE = 0.5
"""Of the longest step that keeps minimisers under a penalty that is not convex."""


def settle(penalties: Sequence[PenalizedUpdate], iteration: int, learning_rate: float, scale: float) -> None:
    """One look at all groups, to be taken right after their update.  [overwrites weights and momenta that become zero]

    iteration, learning_rate, scale   those of that update, which has left its step sizes behind
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
    """The step, or as much of it as leaves minimisers where they are under a penalty that is not convex."""
    longest = SAFE * min(term.longest_step for term in penalized.penalty.terms)
    if math.isinf(longest):
        return step
    return min(step, longest) if isinstance(step, float) else np.minimum(step, step.dtype.type(longest))
