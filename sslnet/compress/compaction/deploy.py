"""Makes a definition for deployment from one for training and testing: inputs for data layers, outputs for losses."""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.layers import LAYERS
from sslnet.net.graph import PhaseState, filter_layers
from sslnet.net.input_layers import Shapes, input_layer, is_source, source_shapes, with_inputs
from sslnet.net.missing_data import net_of
from sslnet.net.net import Net
from sslnet.net.weights import WeightSource, copy_all_weights
from sslnet.prototxt import Definition, read_net


def deploy_definition(definition: Definition, state: PhaseState, shapes: Shapes) -> pb.NetParameter | None:
    """The layers of one phase without rules, losses and labels; None if nothing would change.

    shapes   shapes of the source layers' tops; the batch size becomes 1
    """
    layers = [layer.param for layer in filter_layers(definition, state)]
    if not any(_goes(layer) or (is_source(layer) and layer.type != "Input") for layer in layers):
        return None
    result = pb.NetParameter(name=definition.message.name)
    result.input.extend(definition.message.input)
    result.input_shape.extend(definition.message.input_shape)
    result.input_dim.extend(definition.message.input_dim)
    names = {name for layer in layers for name in (layer.name, *layer.top)}
    losses = [layer for layer in layers if LAYERS[layer.type].OUTPUT]
    main = max(losses, key=lambda loss: sum(loss.loss_weight) or 1, default=None)
    kept: list[pb.LayerParameter] = []
    inner: set[str] = set()
    for layer in layers:
        if LAYERS[layer.type].LOSES_BOTTOMS and not inner.isdisjoint(layer.bottom):
            silence = _plain(layer)  # what it takes is no output
            silence.bottom[:] = [name for name in layer.bottom if name in inner]
            kept.append(silence)
        elif _goes(layer):
            output = _output_layer(layer, names, plain=layer is main)
            if output is not None and not _same_output(output, kept):
                kept.append(output)
                names.add(output.name)
        else:
            kept.append(_plain(layer))
            inner.update(() if is_source(layer) else layer.top)
    read = {name for layer in kept for name in layer.bottom}
    for layer in kept:
        if is_source(layer):
            tops = [top for top in layer.top if top in read]
            if tops:
                source = pb.LayerParameter(name=layer.name, top=tops)
                result.layer.append(input_layer(source, {top: (1, *shapes[top][1:]) for top in tops}))
        else:
            result.layer.append(layer)
    return result


def deploy_net(
    model: str | Path | Definition,
    weights: WeightSource,
    *,
    level: int = 0,
    stages: tuple[str, ...] = (),
    lean: bool = False,
) -> tuple[Net, pb.NetParameter]:
    """Builds the net of a definition as deployed, in phase TEST, with its weights; also returns the definition's message.

    In a definition for training, inputs replace data layers, and outputs replace losses.
    raises DefinitionError when it has no inputs, WeightsError when a layer finds no weights
    """
    definition = model if isinstance(model, Definition) else read_net(os.fspath(model))
    state = PhaseState(pb.TEST, level, stages)
    net = net_of(definition, state, lean=lean)
    deployed = deploy_definition(definition, state, source_shapes(net))
    if deployed is not None:
        shapes = {name: (1, *shape[1:]) for name, shape in source_shapes(net).items()}
        net = Net(with_inputs(definition.with_message(deployed), shapes), phase=pb.TEST, lean=lean)
    if not net.inputs:
        raise DefinitionError("the net has no inputs", path=definition.path)
    copy_all_weights(net.params, weights)
    return net, definition.message


def _goes(layer: pb.LayerParameter) -> bool:
    """Whether the layer is removed for deployment: one that only trains or measures the net."""
    return not LAYERS[layer.type].DEPLOYED


def _output_layer(loss: pb.LayerParameter, names: set[str], *, plain: bool) -> pb.LayerParameter | None:
    """The output layer that replaces a loss, or None; the main output gets a ``plain`` name if that is free."""
    output = LAYERS[loss.type].OUTPUT
    if output is None:
        return None
    kind, name = output
    if name in names or not plain:
        name = f"{loss.name}_{name}" if f"{loss.name}_{name}" not in names else loss.name
    result = pb.LayerParameter(name=name, type=kind, bottom=[loss.bottom[0]], top=[name])
    if loss.HasField("softmax_param"):
        result.softmax_param.CopyFrom(loss.softmax_param)
    return result


def _same_output(output: pb.LayerParameter, kept: list[pb.LayerParameter]) -> bool:
    """Whether an equal output of the same blob exists already, as from another loss on it."""
    return any(k.type == output.type and list(k.bottom) == list(output.bottom) for k in kept)


def _plain(layer: pb.LayerParameter) -> pb.LayerParameter:
    """The layer without fields used only in training: rules, rates, loss weights, fillers. Keeps names of parameters."""
    result = pb.LayerParameter()
    result.CopyFrom(layer)
    for name in ("include", "exclude", "loss_weight", "propagate_down", "phase", "param", "connectivity_mode"):
        result.ClearField(name)
    if any(spec.name for spec in layer.param):
        for spec in layer.param:
            result.param.add(name=spec.name)
    for field, value in result.ListFields():
        if field.message_type is not None and field.name.endswith("_param"):
            _drop_fillers(value)
    return result


def _drop_fillers(param: Message) -> None:
    field: FieldDescriptor
    for field in param.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.name == "FillerParameter":
            param.ClearField(field.name)
