"""Wiring: layers created one after the other, each with its blobs: which tops work in place, which get a blob of their own."""

from __future__ import annotations

from sslnet.blob import Blob
from sslnet.errors import ShapeError
from sslnet.layers import LAYERS
from sslnet.layers.base import Context, Layer, LayerDefinition


class Wiring:
    """The layers of a net, in order, and the blobs between them. Lists have one entry a layer.

    blobs   by name; of a name that a layer in place has written anew, the newest
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.layers: list[Layer] = []
        self.names: list[str] = []
        self.bottoms: list[list[Blob]] = []
        self.tops: list[list[Blob]] = []
        self.bottom_names: list[list[str]] = []
        self.top_names: list[list[str]] = []
        self.loss_weights: list[list[float]] = []
        self.blobs: dict[str, Blob] = {}
        self._kept: set[Blob] = set()
        """Blobs whose data must stay as their layer wrote it: its backward pass reads them."""

    def add(self, definition: LayerDefinition) -> None:
        """Creates one layer and its tops, sets it up and propagates shapes.

        raises DefinitionError, ShapeError for what the layer says wrong, or what does not fit
        """
        param = definition.param
        layer = LAYERS[param.type](definition, self.context)
        bottom = [self.blobs[name] for name in param.bottom]
        names = list(param.top)
        if layer.IS_LOSS and not names:
            names = [param.name if param.name not in self.blobs else f"{param.name}_loss"]
        top = []
        for j, name in enumerate(names):
            if j < len(bottom) and name == param.bottom[j] and not self._must_stay(bottom[j], layer):
                top.append(bottom[j])
            else:
                top.append(Blob(name=name, dtype=self.context.dtype))
                self.blobs[name] = top[-1]
        layer.setup(bottom, top)
        try:
            layer.reshape(bottom, top)
        except ValueError as error:
            raise ShapeError(str(error), span=definition.span(), layer=layer.name) from error
        if self.context.backward and layer.reads_top(in_place=bool(bottom and top) and top[0] is bottom[0]):
            self._kept.update(top)
        given = list(param.loss_weight)
        self.loss_weights.append(
            [given[j] if j < len(given) else layer.default_loss_weight(j) for j in range(len(top))]
        )
        self.layers.append(layer)
        self.names.append(layer.name)
        self.bottoms.append(bottom)
        self.tops.append(top)
        self.bottom_names.append(list(param.bottom))
        self.top_names.append(names)

    def _must_stay(self, blob: Blob, layer: Layer) -> bool:
        """Whether a layer that asks to work in place on the blob gets one of its own instead: what the blob holds is read
        again, by the backward pass of the layer that made it or under another name (Flatten, Split).

        raises DefinitionError for code of the user's own, which may know that it works in place
        """
        stays = blob in self._kept or not blob.owns("data")
        if stays and layer.TYPE == "Python":
            raise layer.error(
                f'it cannot work in place on "{blob.name}", whose values are needed behind it as they are',
                "top",
                0,
                value=True,
                hint="give the top a name of its own",
            )
        return stays

    def versions(self) -> list[Blob]:
        """All blobs, each once, in the order in which they are made; of a name written anew, the older ones too."""
        return list(dict.fromkeys(blob for tops in self.tops for blob in tops))

    def inputs(self) -> list[str]:
        """The blobs that are filled from outside: tops of Input layers."""
        return [name for layer, tops in zip(self.layers, self.top_names) if layer.TYPE == "Input" for name in tops]

    def outputs(self) -> list[str]:
        """The blobs that no layer reads, in the order in which they are made."""
        made: dict[str, None] = {}
        for bottoms, tops in zip(self.bottom_names, self.top_names):
            for name in bottoms:
                made.pop(name, None)
            for name in tops:
                made[name] = None
        return list(made)

    def loss_weights_by_name(self) -> dict[str, float]:
        """What each output counts in the loss, of those that count."""
        return {
            name: weight
            for tops, row in zip(self.top_names, self.loss_weights)
            for name, weight in zip(tops, row)
            if weight
        }
