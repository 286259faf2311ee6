"""The contents of a drawing of a net: a box for each layer, which includes the layers that work in place on its output, and
the blobs between boxes with their shapes; parameters are counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sslnet import sslnet_pb2 as pb
from sslnet.blob import Blob
from sslnet.errors import DefinitionError, SslnetError, raise_errors
from sslnet.layers import LAYERS
from sslnet.layers.base import Context, Layer, LayerDefinition
from sslnet.net.graph import PhaseState, check_graph, filter_layers
from sslnet.net.input_layers import with_inputs
from sslnet.prototxt import Definition, upgrade_net
from sslnet.report.layered import Link, rank_nodes

Shape = tuple[int, ...]
FAR = 2
"""Number of ranks beyond which a source's blob is drawn as a tag beside its reader instead of a line."""


@dataclass
class DrawnLayer:
    """A layer of a drawing.

    detail  its main parameters as text
    params  number of values that it learns or saves; None if it is not known
    """

    name: str
    type: str
    detail: str
    params: int | None

    @property
    def kind(self) -> str:
        """The kind of the layer, a key of ``sslnet.layers.base.KINDS``."""
        return LAYERS[self.type].KIND


@dataclass
class Output:
    """An output blob of a box: its name, its shape if it is known, the boxes that read it."""

    name: str
    shape: Shape | None
    readers: list[int] = field(default_factory=list)


@dataclass
class DiagramBox:
    """A layer, with the layers that work in place on its output; or a tag, which has no parts: the name of a blob."""

    parts: list[DrawnLayer]
    outputs: list[Output] = field(default_factory=list)
    tag: str = ""

    @property
    def is_source(self) -> bool:
        return bool(self.parts) and LAYERS[self.parts[0].type].IS_SOURCE


@dataclass
class Diagram:
    """The contents of a drawing.

    boxes    in the order of the net: readers follow the boxes that they read
    unknown  reason why some shapes are not known: the error of the first layer without a shape
    """

    name: str
    phase: str
    boxes: list[DiagramBox]
    layers: int
    params: int | None
    unknown: SslnetError | None


def diagram(definition: Definition, state: PhaseState, shapes: Mapping[str, Sequence[int]] | None = None) -> Diagram:
    """Makes the diagram of the net in a state.

    shapes   shapes of blobs of the net's source layers; the sources are then not read
    raises   DefinitionError for errors in the prototxt, ShapeError for shapes that do not fit
    """
    definition = upgrade_net(definition)
    if shapes:
        definition = with_inputs(definition, shapes)
    layers = filter_layers(definition, state)
    raise_errors(check_graph(layers))
    inferred = infer(layers, state.phase, definition.path)
    boxes = _boxes(layers, inferred)
    params = [part.params for box in boxes for part in box.parts]
    return Diagram(
        definition.message.name,
        pb.Phase.Name(state.phase),
        _tagged(boxes),
        len(layers),
        None if None in params else sum(number or 0 for number in params),
        inferred.error,
    )


# -- shapes ------------------------------------------------------------------------------------------------------------


@dataclass
class Inferred:
    """The inferred shapes.

    tops, params   by layer; None if they are not known
    error          error of the first layer without a shape
    """

    tops: list[list[Shape | None]] = field(default_factory=list)
    params: list[int | None] = field(default_factory=list)
    error: SslnetError | None = None


def infer(layers: Sequence[LayerDefinition], phase: int, path: str | None) -> Inferred:
    """Infers shapes and numbers of parameters, as far as possible: nothing is run, no parameter is filled.

    raises DefinitionError and ShapeError; missing files, or code that must not run, leave shapes unknown
    """
    beside = os.path.dirname(os.path.abspath(path)) if path else None
    context = Context(phase=phase, beside=beside)
    blobs: dict[str, Blob] = {}
    result = Inferred()
    for definition in layers:
        param = definition.param
        tops: list[Blob | None] = [None] * len(param.top)
        count: int | None = None
        if all(name in blobs for name in param.bottom):
            try:
                layer, made = _set_up(definition, context, [blobs[name] for name in param.bottom])
                tops = list(made)
                count = sum(blob.count for blob in layer.blobs)
            except SslnetError as error:
                if isinstance(error, DefinitionError) and param.type != "Python":
                    raise
                result.error = result.error or error
        for name, top in zip(param.top, tops):
            blobs.pop(name, None)
            if top is not None:
                blobs[name] = top
        result.tops.append([None if top is None else top.shape for top in tops])
        result.params.append(count)
    return result


def _set_up(definition: LayerDefinition, context: Context, bottom: list[Blob]) -> tuple[Layer, list[Blob]]:
    param = definition.param
    layer = LAYERS[param.type](definition, context)

    def without_values(shape: Sequence[int], *filler: str, default: float = 0) -> Blob:
        layer.blobs.append(Blob(shape))
        return layer.blobs[-1]

    layer.new_param = without_values  # type: ignore[method-assign]
    names = list(param.top) or ([param.name] if layer.IS_LOSS else [])
    tops = [
        bottom[j] if j < len(bottom) and name == param.bottom[j] else Blob(name=name) for j, name in enumerate(names)
    ]
    layer.prepare(bottom, tops)
    return layer, tops[: len(param.top)]


# -- boxes -------------------------------------------------------------------------------------------------------------


def _boxes(layers: Sequence[LayerDefinition], inferred: Inferred) -> list[DiagramBox]:
    boxes: list[DiagramBox] = []
    maker: dict[str, tuple[int, int]] = {}
    for definition, shapes, params in zip(layers, inferred.tops, inferred.params):
        param = definition.param
        part = DrawnLayer(param.name, param.type, detail(param), params)
        if len(param.bottom) == len(param.top) == 1 and param.bottom[0] == param.top[0]:
            boxes[maker[param.top[0]][0]].parts.append(part)
            continue
        box = DiagramBox([part])
        for name in param.bottom:
            made_by, output = maker[name]
            readers = boxes[made_by].outputs[output].readers
            if len(boxes) not in readers:
                readers.append(len(boxes))
        for j, (name, shape) in enumerate(zip(param.top, shapes)):
            box.outputs.append(Output(name, shape))
            maker[name] = (len(boxes), j)
        boxes.append(box)
    return boxes


def _tagged(boxes: list[DiagramBox]) -> list[DiagramBox]:
    """The boxes, and tags beside readers that replace long lines from a source."""
    links = [Link(i, tuple(output.readers)) for i, box in enumerate(boxes) for output in box.outputs]
    ranks = rank_nodes(len(boxes), links)
    tags: dict[int, list[str]] = {}
    for i, box in enumerate(boxes):
        for output in box.outputs if box.is_source else ():
            for reader in [reader for reader in output.readers if ranks[reader] - ranks[i] > FAR]:
                output.readers.remove(reader)
                tags.setdefault(reader, []).append(output.name)
    result: list[DiagramBox] = []
    new: list[int] = []
    for i, box in enumerate(boxes):
        here = tags.get(i, [])
        new.append(len(result) + len(here))
        result += [DiagramBox([], [Output(name, None, [new[i]])], name) for name in here]
        result.append(box)
    for box in boxes:
        for output in box.outputs:
            output.readers = [new[reader] for reader in output.readers]
    return result


# -- words -------------------------------------------------------------------------------------------------------------


def detail(param: pb.LayerParameter) -> str:
    """The main parameters of a layer as text."""
    found = LAYERS[param.type].describe(param)
    if param.loss_weight and list(param.loss_weight) != [1]:
        weights = ", ".join(f"{weight:g}" for weight in param.loss_weight)
        found = f"{found}, weight {weights}".lstrip(", ")
    return found
