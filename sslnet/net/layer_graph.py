"""LayerGraph: the record of a net's layers and the blobs between them, used by all parts of a net."""

from __future__ import annotations

from dataclasses import dataclass

from sslnet.blob import Blob
from sslnet.layers.base import Layer
from sslnet.net.parameters import Param


@dataclass(frozen=True)
class LayerGraph:
    """The layers of a net and the blobs between them. Lists have one entry per layer, in the order of the forward pass.

    blobs                 blobs by name; if an in-place layer has replaced a blob, the newest version
    versions              all blobs once, in the order in which they are made, including replaced versions
    inputs                names of the blobs that are filled from outside: tops of Input layers
    outputs               names of the blobs that no layer reads
    layer_loss_weights    loss weight of each top
    params                parameter blobs by layer name, for the layers that have any
    learnable             one Param for each distinct parameter blob: what a solver updates
    runs_backward         whether the net may run backward at all
    layer_need_backward   whether the layer has to run backward
    bottom_need_backward  whether each bottom gets a diff
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
