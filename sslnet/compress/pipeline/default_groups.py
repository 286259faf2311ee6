"""Default groups for a net that declares none: every filter and neuron that is not an output, with all weights that
depend on it; where normalisation follows, the groups are declared on its Scale.

``weigh`` then gives each kind of groups a strength that fits the target, and leaves out kinds that save next to nothing:

    strength = decay * mean norm of the groups * sqrt(what removing all of them saves)

The norm makes strengths independent of the size of weights, which differs between layers; alone, it would make all kinds
lose groups at the same pace. With the other factor, a kind that brings few FLOPs loses fewer. (What a single group saves
would be no measure: layers with few, costly channels would lose nearly all of them.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.compress.control.estimate import costs, remaining_parts, remaining_share
from sslnet.compress.control.penalty_handles import PenaltyHandle, find_handles
from sslnet.compress.pipeline.schedule import STRENGTHS
from sslnet.errors import RunError
from sslnet.layers import LAYERS
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.net import Net
from sslnet.prototxt import Definition

if TYPE_CHECKING:
    from sslnet.solver.solver import Solver

DEFAULTS = dict(zip(STRENGTHS, (0.01, 0.003, 0.003, 0.001)))
"""Strengths if the solver gives none; the controller adjusts them, so only their ratios matter."""

FLOOR = 0.1
"""Fraction of the groups of each kind that stays, at least one."""
WORTH = 0.01
"""Groups of a kind that together save a smaller fraction of the net's cost are left out."""
LEFT_OUT = 0.1
"""Limit of what all groups that are left out would save, as a fraction of the target."""


def declared(net: Any) -> set[str]:
    """Names of the solver's strength fields that the groups of a NetParameter use."""
    found = set()
    for layer in net.layer:
        for spec in layer.param:
            asked = (spec.breadth_decay_mult, spec.kernel_shape_decay_mult, spec.block_group_lasso, spec.group_lasso)
            found |= {name for name, value in zip(STRENGTHS, asked) if value}
    return found


def set_strengths(solver: Any, net: Any, by_size: bool = True) -> None:
    """Sets default strengths in a SolverParameter for the groups of its net, unless it already has one of them.

    by_size  whether strengths of groups by name shall grow with their size; not if the groups are weighed by ``weigh``
    """
    asked = declared(net)
    if any(getattr(solver, name) for name in asked):
        return
    for name in asked:
        setattr(solver, name, DEFAULTS[name])
    if "group_lasso_decay" in asked and by_size:
        solver.group_lasso_scale_by_size = True


def add_groups(definition: Definition, state: Mapping[str, Any]) -> list[str]:
    """Adds groups to the message of a net, for all layers with a default group whose outputs are not those of the net.

    Returns the names of these layers.

    If normalisation follows a layer, the group is declared on its Scale, as normalisation cancels the size of weights.

    state   phase, level and stages of the net to train
    """
    layers = [layer.param for layer in filter_layers(definition, PhaseState(**state))]
    last = _last(layers)
    chosen = {k: x for k, x in enumerate(layers) if LAYERS[x.type].DEFAULT_GROUP and x.name not in last and _trained(x)}
    for k, layer in chosen.items():
        scale = _scale_behind(layer, layers[k + 1 :])
        asked = layer if scale is None else scale
        if not asked.param:
            asked.param.add()
        name = "FILTER" if scale is not None else LAYERS[layer.type].DEFAULT_GROUP
        asked.param[0].group_lasso.add(
            group=pb.GroupLassoSpec.Group.Value(name), couple=True, take_bias=True, take_followers=True
        )
    return [layer.name for layer in chosen.values()]


def weigh(message: Any, solver: Solver, of: str, part: float | None) -> list[str]:
    """Sets the multipliers of all coupled groups of a net by what they save, and removes groups that save next to nothing.

    message  the net's definition [changes it]
    solver   a solver of this definition whose net holds the weights to start from
    of       "params" to count parameters, else FLOPs
    part     fraction of them that may remain; None: not known
    returns  names of the layers of which the groups were removed
    """
    kinds = [lever for lever in find_handles(solver) if lever.penalized.coupled]
    count = costs(solver.net, "params" if of == "params" else "flops")
    savings = [_saving(lever, solver.net, count) for lever in kinds]
    dropped = _negligible(savings, part)
    most = max(savings, default=0.0) or 1.0
    layers = {layer.name: layer for layer in message.layer}
    removed = []
    for k, (lever, saving) in enumerate(zip(kinds, savings)):
        names = {update.param.layer.name for update in lever.updates}
        for layer in (layers[name] for name in sorted(names) if name in layers):
            for spec in layer.param:
                if k in dropped and spec.group_lasso:
                    removed.append(layer.name)
                    del spec.group_lasso[:]
                for group in spec.group_lasso:
                    group.decay_mult = float(lever.norms().mean()) * (saving / most) ** 0.5
    return removed


def _saving(lever: PenaltyHandle, net: Net, count: list[tuple[int, int]]) -> float:
    """Fraction of the net's cost that all groups save; estimated from half of them, for without any the net is cut in two."""
    kept = lever.first(0.5)
    gone = int(np.count_nonzero(~kept))
    if not gone:
        return 0.0
    try:
        now = remaining_share(count, remaining_parts(net))
        with lever.without(~kept):
            return max(0.0, now - remaining_share(count, remaining_parts(net))) * lever.count / gone
    except RunError:
        return 0.0


def _negligible(savings: Sequence[float], part: float | None) -> set[int]:
    """Numbers of the kinds of groups that save less than WORTH each, and together not what the target needs.

    savings  fraction of the net's cost that all groups of a kind save
    """
    found: set[int] = set()
    total = 0.0
    for k in sorted(range(len(savings)), key=lambda k: savings[k]):
        total += savings[k]
        if savings[k] >= WORTH or total > LEFT_OUT * (1.0 if part is None else part):
            break
        found.add(k)
    return found if len(found) < len(savings) else set()


def _scale_behind(maker: Any, layers: list[Any]) -> Any | None:
    """The Scale that follows a layer through BatchNorm and has a learned value for each channel; None without one."""
    blob, normed = maker.top[0], False
    for layer in layers:
        if blob not in layer.bottom:
            continue
        if layer.type == "BatchNorm" and not normed:
            blob, normed = layer.top[0], True
            continue
        by_channel = len(layer.bottom) == 1 and layer.scale_param.axis == 1 and layer.scale_param.num_axes == 1
        return layer if layer.type == "Scale" and normed and by_channel and _trained(layer) else None
    return None


def _trained(layer: Any) -> bool:
    return not layer.param or layer.param[0].lr_mult != 0


def _last(layers: list[Any]) -> set[str]:
    """Names of the layers connected to an output of the net, such as a loss, without another mixing layer between."""
    exposed: set[str] = set()
    read: set[str] = set()
    found = set()
    for layer in reversed(layers):
        tops, bottoms = set(layer.top), set(layer.bottom)
        reaches = bool(tops & exposed) or not tops & read
        exposed -= tops
        read -= tops
        if reaches and LAYERS[layer.type].MIXES_CHANNELS:
            found.add(layer.name)
        elif reaches:
            exposed |= bottoms
        read |= bottoms
    return found
