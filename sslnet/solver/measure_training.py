"""Measures the sparsity of a net while it trains, and the regularisation terms of its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sslnet.net.parameters import Param
from sslnet.solver.callbacks import Training
from sslnet.sparsity.group_penalty import GroupPenalty
from sslnet.sparsity.groups import ROWS, tiles_of
from sslnet.sparsity.measure import CoupledSparsity, NonZero, Sparsity, measure


def measure_training(solver: Training) -> Sparsity:
    """Measures the sparsity of the net that a solver trains, and the current regularisation terms of its loss."""
    penalties: dict[str, float] = {}
    decays = {u.param.name: u.decay_value() if u.param.lr_mult else 0.0 for u in solver.updates}
    coupled = []
    for each in (*solver.penalties, *solver.ended):
        ended = each in solver.ended
        if ended and not each.coupled:
            continue
        params = [update.param for update in each.members]
        for term, (norms, value) in zip(each.penalty.terms, each.penalty.norms_and_values(each.arrays)):
            if term.coupled:
                groups = NonZero(int(np.count_nonzero(norms)), norms.size)
                coupled.append(CoupledSparsity(term.name, groups, *_tied(term, params), 0.0 if ended else value))
            else:
                name = params[term.parts[0].index].name
                penalties[name] = penalties.get(name, 0.0) + (0.0 if ended else value)
    layers = [
        replace(layer, group_lasso=penalties.get(layer.name), weight_decay=decays[layer.name])
        for layer in measure(solver.net)
    ]
    return Sparsity(layers, coupled, bool(penalties or coupled) or any(u.keep is not None for u in solver.updates))


def _tied(term: GroupPenalty, members: Sequence[Param]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the layers that produce the channels of coupled groups, and of the layers that read them."""
    makers: dict[str, None] = {}
    readers: dict[str, None] = {}
    for part in term.parts:
        param, tiles = members[part.index], tiles_of(members[part.index])
        rows = [tiles[name] for name in ROWS if name in tiles] or [(1, 1)]
        (makers if (part.height, part.width) in rows else readers)[param.layer.name] = None
    return tuple(makers), tuple(readers)
