"""Default groups for a net that declares none: every filter and neuron that is not an output, with all weights that
depend on it; where normalisation follows, the groups are declared on its Scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslnet import sslnet_pb2 as pb
from sslnet.compress.pipeline.schedule import STRENGTHS
from sslnet.layers import LAYERS
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.prototxt import Definition

DEFAULTS = dict(zip(STRENGTHS, (0.01, 0.003, 0.003, 0.001)))
"""Strengths if the solver gives none; the controller adjusts them, so only their ratios matter."""


def declared(net: Any) -> set[str]:
    """Names of the solver's strength fields that the groups of a NetParameter use."""
    found = set()
    for layer in net.layer:
        for spec in layer.param:
            asked = (spec.breadth_decay_mult, spec.kernel_shape_decay_mult, spec.block_group_lasso, spec.group_lasso)
            found |= {name for name, value in zip(STRENGTHS, asked) if value}
    return found


def set_strengths(solver: Any, net: Any) -> None:
    """Sets default strengths in a SolverParameter for the groups of its net, unless it already has one of them."""
    asked = declared(net)
    if any(getattr(solver, name) for name in asked):
        return
    for name in asked:
        setattr(solver, name, DEFAULTS[name])
    if "group_lasso_decay" in asked:
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
