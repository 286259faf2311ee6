"""The sparsity of a net while it trains: what is zero, and what regularisation adds to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sslnet.net.parameters import Param
from sslnet.solver.callbacks import Training
from sslnet.sparsity.coupled_penalty import Family
from sslnet.sparsity.groups import ROWS, tiles_of
from sslnet.sparsity.measure import CoupledSparsity, NonZero, Sparsity, measure


def measure_training(solver: Training) -> Sparsity:
    """The sparsity of the net that a solver trains, with what regularisation adds to the loss now."""
    penalties = {update.param.name: update.penalty_value() for update in solver.updates if update.penalty is not None}
    decays = {u.param.name: u.decay_value() if u.param.lr_mult else 0.0 for u in solver.updates}
    coupled = []
    for update in (*solver.coupled, *solver.ended):
        members = [member.param for member in update.members]
        for family, norms in zip(update.penalty.families, update.norms()):
            value = 0.0 if update in solver.ended else float(family.strengths @ norms)
            if family.own:
                name = members[family.parts[0].index].name
                penalties[name] = penalties.get(name, 0.0) + value
            else:
                groups = NonZero(int(np.count_nonzero(norms)), norms.size)
                coupled.append(CoupledSparsity(family.name, groups, *_tied(family, members), value))
    layers = [
        replace(layer, group_lasso=penalties.get(layer.name), weight_decay=decays[layer.name])
        for layer in measure(solver.net)
    ]
    return Sparsity(layers, coupled, bool(penalties or coupled) or any(u.keep is not None for u in solver.updates))


def _tied(family: Family, members: Sequence[Param]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers that make a family's channels, and those that read them."""
    makers: dict[str, None] = {}
    readers: dict[str, None] = {}
    for part in family.parts:
        param, tiles = members[part.index], tiles_of(members[part.index])
        rows = [tiles[name] for name in ROWS if name in tiles] or [(1, 1)]
        (makers if (part.height, part.width) in rows else readers)[param.layer.name] = None
    return tuple(makers), tuple(readers)
