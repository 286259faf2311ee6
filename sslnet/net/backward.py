"""Finds the layers that run backward, and their bottoms that get a diff: those between a learnable blob and a loss."""

from __future__ import annotations

from collections.abc import Sequence

from sslnet.blob import Blob
from sslnet.layers.base import Layer


def backward_needs(
    layers: Sequence[Layer],
    bottoms: Sequence[Sequence[Blob]],
    tops: Sequence[Sequence[Blob]],
    loss_weights: Sequence[Sequence[float]],
    *,
    force: bool,
) -> tuple[list[bool], list[list[bool]]]:
    """For each layer, whether it runs backward, and for each of its bottoms, whether it gets a diff.

    A layer is skipped if nothing below it is learned (lr_mult 0) or nothing above it is a loss. propagate_down overrides
    this for single bottoms; ``force`` (force_backward) for all, and requests all parameter diffs.

    Ref: Caffe's Net::Init
    """
    needs: dict[Blob, bool] = {}
    runs: list[bool] = []
    wanted: list[list[bool]] = []
    for layer, bottom, top in zip(layers, bottoms, tops):
        below = [needs[blob] for blob in bottom]
        wanted.append(list(layer.param.propagate_down) or below)
        runs.append(any(below) or any(layer.param_propagate_down))
        needs.update(dict.fromkeys(top, runs[-1]))

    under_loss: set[Blob] = set()
    skipped: set[Blob] = set()
    for i in reversed(range(len(layers))):
        row = list(zip(tops[i], loss_weights[i]))
        counts = [blob for blob, weight in row if weight or blob in under_loss]
        if not counts or (runs[i] and all(blob in skipped for blob in counts)):
            runs[i] = False
            wanted[i] = [False] * len(wanted[i])
        for blob, need in zip(bottoms[i], wanted[i]):
            if counts:
                under_loss.add(blob)
            if not need:
                skipped.add(blob)

    if force:
        for i, layer in enumerate(layers):
            runs[i] = True
            wanted[i] = [need or layer.allow_force_backward(j) for j, need in enumerate(wanted[i])]
            layer.param_propagate_down = [True] * len(layer.blobs)
    return runs, wanted
