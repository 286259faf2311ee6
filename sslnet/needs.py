"""Which layers run backward, and which of their bottoms get a diff: what lies between a learnable blob and a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslnet.blob import Blob

if TYPE_CHECKING:
    from sslnet.net import Net


def backward_needs(net: Net) -> tuple[list[bool], list[list[bool]]]:
    """For each layer whether it runs backward, and for each of its bottoms whether it gets a diff.

    A layer is skipped when nothing below it is learned (lr_mult 0) or nothing above it is a loss; propagate_down
    overrules for single bottoms, force_backward for all (and asks for all parameter diffs).

    Ref: Caffe's Net::Init
    """
    needs: dict[Blob, bool] = {}
    layers: list[bool] = []
    wanted: list[list[bool]] = []
    for layer, bottoms, tops in zip(net.layers, net.bottoms, net.tops):
        below = [needs[blob] for blob in bottoms]
        wanted.append(list(layer.param.propagate_down) or below)
        layers.append(any(below) or any(layer.param_propagate_down))
        needs.update(dict.fromkeys(tops, layers[-1]))

    under_loss: set[Blob] = set()
    skipped: set[Blob] = set()
    for i in reversed(range(len(net.layers))):
        row = list(zip(net.tops[i], net.layer_loss_weights[i]))
        counts = [blob for blob, weight in row if weight or blob in under_loss]
        if not counts or (layers[i] and all(blob in skipped for blob in counts)):
            layers[i] = False
            wanted[i] = [False] * len(wanted[i])
        for blob, need in zip(net.bottoms[i], wanted[i]):
            if counts:
                under_loss.add(blob)
            if not need:
                skipped.add(blob)

    if net.definition.message.force_backward:
        for i, layer in enumerate(net.layers):
            layers[i] = True
            wanted[i] = [need or layer.allow_force_backward(j) for j, need in enumerate(wanted[i])]
            layer.param_propagate_down = [True] * len(layer.blobs)
    return layers, wanted
