"""Which layers run backward, and which of their bottoms get a diff: what lies between a learnable blob and a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sslnet.net import Net


def backward_needs(net: Net) -> tuple[list[bool], list[list[bool]]]:
    """For each layer whether it runs backward, and for each of its bottoms whether it gets a diff.

    A layer is skipped when nothing below it is learned (lr_mult 0) or nothing above it is a loss; propagate_down
    overrules for single bottoms, force_backward for all (and asks for all parameter diffs).

    Ref: Caffe's Net::Init
    """
    needs: dict[str, bool] = {}
    layers: list[bool] = []
    wanted: list[list[bool]] = []
    for layer, bottoms, tops in zip(net.layers, net.bottom_names, net.top_names):
        below = [needs[name] for name in bottoms]
        wanted.append(list(layer.param.propagate_down) or below)
        layers.append(any(below) or any(layer.param_propagate_down))
        needs.update(dict.fromkeys(tops, layers[-1]))

    under_loss: set[str] = set()
    skipped: set[str] = set()
    for i in reversed(range(len(net.layers))):
        row = list(zip(net.top_names[i], net.layer_loss_weights[i]))
        counts = [name for name, weight in row if weight or name in under_loss]
        if not counts or (layers[i] and all(name in skipped for name in counts)):
            layers[i] = False
            wanted[i] = [False] * len(wanted[i])
        for name, need in zip(net.bottom_names[i], wanted[i]):
            if counts:
                under_loss.add(name)
            if not need:
                skipped.add(name)

    if net.definition.message.force_backward:
        for i, layer in enumerate(net.layers):
            layers[i] = True
            wanted[i] = [need or layer.allow_force_backward(j) for j, need in enumerate(wanted[i])]
            layer.param_propagate_down = [True] * len(layer.blobs)
    return layers, wanted
