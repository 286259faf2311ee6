"""Replaces the layers that read data from outside by Input layers, and copies data into these.

Used to compare two nets, or to time one, on the same data without reading them twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sslnet import sslnet_pb2 as pb
from sslnet.layers import LAYERS
from sslnet.prototxt import Definition

if TYPE_CHECKING:
    from sslnet.net.net import Net

Shapes = Mapping[str, Sequence[int]]


def is_source(param: pb.LayerParameter) -> bool:
    """Whether a layer definition is a source: it provides data from outside (Input layers included)."""
    cls = LAYERS.get(param.type)
    return cls is not None and cls.IS_SOURCE


def source_shapes(net: Net) -> dict[str, tuple[int, ...]]:
    """Shapes of the tops of the net's source layers, by blob name."""
    return {
        name: blob.shape
        for layer, names, tops in zip(net.layers, net.top_names, net.tops)
        if layer.IS_SOURCE
        for name, blob in zip(names, tops)
    }


def with_inputs(definition: Definition, shapes: Shapes) -> Definition:
    """The definition with Input layers of the same names and rules in place of its source layers.

    A source layer with a top of unknown shape is kept. File positions of all other layers remain correct.
    """
    message = pb.NetParameter()
    message.CopyFrom(definition.message)
    for layer in message.layer:
        if is_source(layer) and all(top in shapes for top in layer.top):
            layer.CopyFrom(input_layer(layer, shapes))
    if message.input and all(name in shapes for name in message.input):
        message.ClearField("input_dim")
        message.ClearField("input_shape")
        for name in message.input:
            message.input_shape.add().dim.extend(shapes[name])
    return definition.with_message(message)


def input_layer(source: pb.LayerParameter, shapes: Shapes) -> pb.LayerParameter:
    """The Input layer with the tops, and the include and exclude rules, of a source layer's definition."""
    layer = pb.LayerParameter(name=source.name, type="Input", top=source.top)
    layer.include.extend(source.include)
    layer.exclude.extend(source.exclude)
    for top in source.top:
        layer.input_param.shape.add().dim.extend(shapes[top])
    return layer


def copy_sources(source: Net, target: Net) -> None:
    """Copies the tops of one net's source layers to the blobs of the same names of another; repeats or cuts the batch."""
    for name in source_shapes(target):
        if name in source.blobs:
            data, blob = source.blobs[name].data, target.blobs[name]
            blob.data[...] = np.resize(data, blob.shape) if data.shape != blob.shape else data


def fetch(net: Net) -> None:
    """Runs the source layers once, so that their tops hold one batch."""
    for layer, bottom, top in zip(net.layers, net.bottoms, net.tops):
        if layer.IS_SOURCE:
            layer.forward(bottom, top)


def fill_inputs(net: Net, seed: int = 0) -> bool:
    """Fills the net's inputs with normal random numbers, labels with zeros (a valid class); returns whether it has any."""
    random = np.random.default_rng(seed)
    allowed: dict[str, list[bool]] = {}
    for layer, names in zip(net.layers, net.bottom_names):
        for j, name in enumerate(names):
            if layer.TYPE != "Split":
                allowed.setdefault(written_name(net, name), []).append(layer.allow_force_backward(j))
    labels = {name for name, each in allowed.items() if not any(each)}  # PriorBox reads the size of the images alone
    for name in net.inputs:
        blob = net.blobs[name]
        blob.data[...] = 0 if name in labels else random.standard_normal(blob.shape)
    return bool(net.inputs)


def written_name(net: Net, name: str) -> str:
    """The name in the definition of a blob that may be a top of a Split layer."""
    makers = {
        top: (layer, bottoms)
        for layer, bottoms, tops in zip(net.layers, net.bottom_names, net.top_names)
        for top in tops
    }
    while makers[name][0].TYPE == "Split":
        name = makers[name][1][0]
    return name
