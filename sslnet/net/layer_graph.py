"""The record of a net's layers and the blobs between them: all that the parts of a net need to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from sslnet.blob import Blob
from sslnet.layers.base import Layer
from sslnet.net.parameters import Param


@dataclass(frozen=True)
class LayerGraph:
    """Lists have one entry a layer, in the order in which the layers run forward.

    blobs                 by name; of a name that a layer in place has written anew, the newest
    versions              all blobs, each once, in the order in which they are made; of such a name the older ones too
    inputs                names of the blobs that are filled from outside: tops of Input layers
    outputs               names of the blobs that no layer reads
    layer_loss_weights    for each top what it counts in the loss
    params                a layer's parameter blobs by its name, of the layers that have any
    learnable             one Param for each distinct parameter blob: what a solver updates
    runs_backward         whether there may be backward passes at all
    layer_need_backward   whether the layer has to run backward
    bottom_need_backward  for each bottom whether it gets a diff
    """

    layers: list[Layer]
    layer_names: list[str]
    bottoms: list[list[Blob]]
    tops: list[list[Blob]]
    bottom_names: list[list[str]]
    top_names: list[list[str]]
    blobs: dict[str, Blob]
    versions: list[Blob]
    inputs: list[str]
    outputs: list[str]
    layer_loss_weights: list[list[float]]
    params: dict[str, list[Blob]]
    learnable: list[Param]
    runs_backward: bool
    layer_need_backward: list[bool]
    bottom_need_backward: list[list[bool]]

    def loss_weights(self) -> dict[str, float]:
        """The loss weight of each blob that has one, by name."""
        return {
            name: weight
            for tops, row in zip(self.top_names, self.layer_loss_weights)
            for name, weight in zip(tops, row)
            if weight
        }
