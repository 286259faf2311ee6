"""Creates the layers of a net in order, each with its blobs; decides which tops are in place and which get a new blob."""

from __future__ import annotations

from sslnet.blob import Blob
from sslnet.errors import DataError, DefinitionError, SslnetError, raise_errors
from sslnet.layers import LAYERS
from sslnet.layers.base import Context, Layer, LayerDefinition
from sslnet.net.backward import backward_needs
from sslnet.net.layer_graph import LayerGraph
from sslnet.net.parameters import collect_params


class GraphBuilder:
    """Builds a net's layers, one ``add`` per layer; ``graph`` returns the result."""

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
        self.errors: list[SslnetError] = []
        """What is wrong with the layers; ``graph`` raises them."""
        self._unknown: set[str] = set()
        """Blobs of unknown shape, because something is wrong with their layer or one above it."""
        self._kept: set[Blob] = set()
        """Blobs that must not be overwritten, because the backward pass of their layer reads them."""

    def add(self, definition: LayerDefinition) -> None:
        """Creates one layer and its tops, sets it up and propagates shapes.

        An error in the layer's definition, and shapes or data that do not fit, are noted in ``errors``. The layers that
        read its tops are then left out, for the shapes of their bottoms are not known.
        """
        if self._unknown.isdisjoint(definition.param.bottom):
            self._unknown.difference_update(definition.param.top)
            try:
                self._add(definition)
                return
            except (DefinitionError, DataError) as error:
                self.errors += getattr(error, "errors", [error])
        self.leave_out(definition)

    def leave_out(self, definition: LayerDefinition) -> None:
        """Takes the tops of a layer as blobs of unknown shape; layers that read them are left out as well."""
        self._unknown.update(definition.param.top)

    def _add(self, definition: LayerDefinition) -> None:
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
        layer.prepare(bottom, top)
        if self.context.backward and layer.reads_top(in_place=bool(bottom and top) and top[0] is bottom[0]):
            self._kept.update(top)
        given = list(param.loss_weight)
        self.loss_weights.append(
            [given[j] if j < len(given) else layer.default_loss_weight(j) for j in range(len(top))]
        )
        self._check_names(layer)
        self.layers.append(layer)
        self.names.append(layer.name)
        self.bottoms.append(bottom)
        self.tops.append(top)
        self.bottom_names.append(list(param.bottom))
        self.top_names.append(names)

    def _check_names(self, layer: Layer) -> None:
        """Raises DefinitionError where two layers of one name have weights, which are stored by name."""
        source = layer.definition.source
        if source is None or layer.name not in source.renamed or not layer.blobs:
            return
        name = source.renamed[layer.name]
        if any(other.blobs and source.renamed.get(other.name, other.name) == name for other in self.layers):
            raise layer.error(
                f'a second layer with weights is named "{name}"', "name", hint="weights are stored by the layer's name"
            )

    def _must_stay(self, blob: Blob, layer: Layer) -> bool:
        """Whether a layer that requests to work in place on the blob gets a new blob instead, because the data are read
        again: by the backward pass of the layer that wrote them, or under another name (Flatten, Split).

        raises DefinitionError for a layer of user code, which may rely on working in place
        """
        stays = blob in self._kept or not blob.owns("data")
        if stays and layer.TYPE == "Python":
            raise layer.error(
                f'it cannot work in place on "{blob.name}": other layers need the original values',
                "top",
                0,
                value=True,
                hint="give the top a name of its own",
            )
        return stays

    def graph(self, *, force_backward: bool) -> LayerGraph:
        """The record of all added layers and their blobs; parameters of the same name are shared from now on.

        raises what is wrong with the layers, ErrorList for several errors; ShapeError if shared parameters disagree
        """
        raise_errors(self.errors)
        learnable = collect_params(self.layers)
        layer_needs, bottom_needs = backward_needs(
            self.layers, self.bottoms, self.tops, self.loss_weights, force=force_backward
        )
        return LayerGraph(
            layers=self.layers,
            layer_names=self.names,
            bottoms=self.bottoms,
            tops=self.tops,
            bottom_names=self.bottom_names,
            top_names=self.top_names,
            blobs=self.blobs,
            versions=list(dict.fromkeys(blob for tops in self.tops for blob in tops)),
            inputs=[name for layer, tops in zip(self.layers, self.top_names) if layer.TYPE == "Input" for name in tops],
            outputs=self._outputs(),
            layer_loss_weights=self.loss_weights,
            params={layer.name: layer.blobs for layer in self.layers if layer.blobs},
            learnable=learnable,
            runs_backward=self.context.backward,
            layer_need_backward=layer_needs,
            bottom_need_backward=bottom_needs,
        )

    def _outputs(self) -> list[str]:
        """Names of the blobs that no layer reads, in the order in which they are written."""
        made: dict[str, None] = {}
        for bottoms, tops in zip(self.bottom_names, self.top_names):
            for name in bottoms:
                made.pop(name, None)
            for name in tops:
                made[name] = None
        return list(made)
