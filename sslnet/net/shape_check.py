"""Checks a net without data and weights: its graph, the definition of each layer, and all shapes.

Layers that read data are replaced by inputs of declared shapes, or of shapes assumed from their definitions. Nothing of the
size of a blob is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError, SslnetError
from sslnet.layers import LAYERS
from sslnet.layers.base import Context, LayerDefinition
from sslnet.net.builder import GraphBuilder
from sslnet.net.graph import PhaseState, checked_layers, insert_splits
from sslnet.net.input_layers import input_layer
from sslnet.prototxt import Definition

Shape = tuple[int, ...]


@dataclass
class NetCheck:
    """What the check of a net in one phase found.

    layers    number of layers that run
    problems  what stops it, in the order of the file
    notes     what was assumed, and what could not be checked
    shapes    blob -> shape, of those that are known
    params    layer -> shapes of its parameter blobs
    """

    phase: int
    layers: int = 0
    problems: list[SslnetError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    params: dict[str, list[Shape]] = field(default_factory=dict)


def check_net(definition: Definition, state: PhaseState, shapes: Mapping[str, Sequence[int]]) -> NetCheck:
    """Checks a net in one state.

    definition  may have ``problems``, which are among those found
    shapes      blob that a data layer makes -> its shape, for those that are not to be assumed
    """
    check = NetCheck(state.phase)
    layers, check.problems = checked_layers(definition, state)
    check.layers = len(layers)
    if not layers:
        return check
    known = _without_broken(layers)
    layers = [_replaced(layer, shapes, check) if _is_data(layer) else layer for layer in layers]
    builder = GraphBuilder(Context(int(state.phase), backward=False, fills=False))
    if len(known) == len(layers):
        layers = insert_splits(layers)
    for layer in layers:
        if layer.param.name not in known and layer.index >= 0:
            builder.leave_out(layer)
        elif layer.param.type == "Python":
            check.notes.append(f'layer "{layer.param.name}" runs Python code: what follows it is not checked')
            builder.leave_out(layer)
        else:
            builder.add(layer)
    check.problems += builder.errors
    if all(isinstance(problem, DefinitionError) and problem.span is not None for problem in check.problems):
        check.problems.sort(key=lambda problem: (problem.line or 0, problem.column or 0))
    check.shapes = {name: blob.shape for name, blob in builder.blobs.items()}
    check.params = {layer.name: [blob.shape for blob in layer.blobs] for layer in builder.layers if layer.blobs}
    return check


def _is_data(layer: LayerDefinition) -> bool:
    cls = LAYERS.get(layer.param.type)
    return cls is not None and cls.IS_SOURCE and cls.READS_FILES


def _without_broken(layers: Sequence[LayerDefinition]) -> set[str]:
    """The layers that can be created: of a known type, with as many bottoms and tops as it takes, all of them made."""
    made: set[str] = set()
    names: set[str] = set()
    for layer in layers:
        param, cls = layer.param, LAYERS.get(layer.param.type)
        counts_fit = cls is not None and all(
            least <= len(given) <= (len(given) if most is None else most)
            for given, (least, most) in ((param.bottom, cls.BOTTOMS), (param.top, (0 if cls.IS_LOSS else cls.TOPS[0], cls.TOPS[1])))
        )  # fmt: skip
        if counts_fit and made.issuperset(param.bottom) and param.name:
            names.add(param.name)
        made.update(param.top)
    return names


def _replaced(layer: LayerDefinition, shapes: Mapping[str, Sequence[int]], check: NetCheck) -> LayerDefinition:
    """An Input layer in place of one that reads data, with declared or assumed shapes."""
    cls, param = LAYERS[layer.param.type], layer.param
    assumed, reason = cls.assumed_shapes(param)
    found = {top: tuple(shapes[top]) if top in shapes else shape for top, shape in zip(param.top, assumed)}
    guessed = [top for top in param.top if top not in shapes]
    batch = next((shapes[top][0] for top in param.top if top in shapes), None)
    if batch is not None:  # the other tops are of the same images
        found |= {top: (batch, *found[top][1:]) for top in guessed if found[top]}
        guessed = []
    if guessed and reason:
        words = ", ".join(f"{top} {_by(found[top])}" for top in guessed)
        check.notes.append(f'layer "{param.name}": assumed {words} ({reason}); --shape {guessed[0]}=... says otherwise')
    message = pb.LayerParameter()
    message.CopyFrom(input_layer(param, found))
    return replace(layer, param=message)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"
