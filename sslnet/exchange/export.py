"""``to_onnx``: writes a net as an ONNX model, which onnxruntime, OpenCV, TVM and others run.

Blobs keep their names; the output of a layer in place is called blob/layer, and that of the last one has the blob's own
name. Parameters are called layer.0, layer.1. Input preprocessing is stored in the model's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.json_format import MessageToDict
from onnx import helper

import sslnet
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compare import BlobDifference, Difference, blob_difference
from sslnet.errors import RunError
from sslnet.exchange.graph import Graph, value_info
from sslnet.exchange.quantized import input_scale, integer_steps_of, quantized_to_onnx
from sslnet.exchange.runtime import run_in_onnxruntime
from sslnet.exchange.simplify import simplify
from sslnet.net.net import Net
from sslnet.sources.presets import RANDOM, resolved

TOLERANCE = 1e-4
QUANTIZED_TOLERANCE = 0.05
"""For quantised nets: sums that lie between two bytes may be rounded to the other one, and following layers change with it."""


def to_onnx(net: Net, metadata: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """Converts the net, in its phase, to an onnx.ModelProto.

    metadata   entries of the model's metadata besides the net's name: values become JSON

    The batch axis is free (N) unless a layer only works for the net's batch size.
    raises DefinitionError for a layer that has no form in ONNX
    """
    graph, values = Graph(), {}
    integers = integer_steps_of(net)
    last = {name: i for i, names in enumerate(net.top_names) for name in names}
    for i, layer in enumerate(net.layers):
        if layer.IS_SOURCE:
            values.update({name: name for name in net.top_names[i]})
            continue
        graph.start_layer(layer)
        since, inputs = len(graph.nodes), [values[name] for name in net.bottom_names[i]]
        if i in integers:
            results = quantized_to_onnx(graph, layer, integers[i], inputs)
        else:
            results = layer.to_onnx(graph, inputs, net.bottoms[i], net.tops[i])
        for name, value in zip(net.top_names[i], results):
            if value in inputs:  # the layer adds no node
                values[name] = value
                continue
            values[name] = name if last[name] == i and name not in net.inputs else f"{name}/{layer.name}"
            graph.rename(since, value, values[name])
    return _model(net, graph, values, metadata or {})


def _model(net: Net, graph: Graph, values: dict[str, str], metadata: Mapping[str, Any]) -> onnx.ModelProto:
    names = output_names(net)
    for name, shown in zip(net.outputs, names):
        if values[name] != shown:  # an input, or another blob, as it is
            graph.nodes.append(helper.make_node("Identity", [values[name]], [shown], name=f"{shown}:output"))
    batches = {net.blobs[name].shape[0] for name in (*net.inputs, *net.outputs) if net.blobs[name].shape}
    free = not graph.fixed_batch and len(batches) == 1
    infos = [
        [value_info(shown, net.blobs[name], free) for name, shown in zip(blobs, words)]
        for blobs, words in ((net.inputs, net.inputs), (net.outputs, names))
    ]
    simplify(graph, *infos)
    onnx_graph = helper.make_graph(
        graph.nodes, _identifier(net.name), infos[0], infos[1], initializer=list(graph.constants.values())
    )
    opsets = [helper.make_opsetid("", graph.opset)]
    model = helper.make_model(
        onnx_graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # the oldest file format, which most readers support
        producer_name="sslnet",
        producer_version=sslnet.__version__,
    )
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    helper.set_model_props(model, {"name": net.name, **texts})
    return model


def output_names(net: Net) -> list[str]:
    """The names of the model's outputs, in the net's order: those of the blobs; of an input blob that a layer changes in
    place, or that is an output as it is, blob/output."""
    return [f"{name}/output" if name in net.inputs else name for name in net.outputs]


def preprocessing(message: pb.NetParameter) -> dict[str, Any]:
    """The preprocessing of images by a definition's data layers: the transform_param of the first, or nothing. Presets are
    written out, and what is random is left out.

    message  pb.NetParameter with its data layers
    """
    for layer in message.layer:
        if layer.HasField("transform_param"):
            transform = MessageToDict(resolved(layer.transform_param), preserving_proto_field_name=True)
            return {name: transform[name] for name in transform if name not in RANDOM}
    return {}


def compare_with_onnxruntime(model: onnx.ModelProto, net: Net, seed: int = 0) -> Difference | None:
    """Compares the net and the model on the same random inputs; None if onnxruntime is not installed."""
    random = np.random.default_rng(seed)
    inputs: dict[str, Any] = {name: _random_input(net, name, random) for name in net.inputs}
    found_there = run_in_onnxruntime(model.SerializeToString(), inputs, output_names(net))
    if found_there is None:
        return None
    theirs = dict(zip(net.outputs, (found_there[name] for name in output_names(net))))
    ours = net.forward(**inputs)
    found: list[BlobDifference] = [blob_difference(name, ours[name], theirs[name]) for name in net.outputs]
    return Difference("random numbers", found)


def _random_input(net: Net, name: str, random: np.random.Generator) -> np.ndarray:
    """Random input of normal numbers; numbers within the range of an input that is quantised; zeros for inputs of integers (indices of an Embed or a BatchReindex)."""
    shape = net.blobs[name].shape
    scale = input_scale(net, name)
    if scale is not None:
        return random.uniform(*scale, shape).astype(np.float32)
    whole = any(name == names[j] for layer, names in zip(net.layers, net.bottom_names) for j in layer.INDEX_BOTTOMS)
    return np.zeros(shape, np.float32) if whole else random.standard_normal(shape).astype(np.float32)


def export(net: Net, metadata: Mapping[str, Any] | None = None) -> tuple[onnx.ModelProto, Difference | None]:
    """Exports the model, checks it with ONNX's own checker, and compares it with onnxruntime if that is installed.

    raises RunError if the model's outputs differ from the net's
    """
    model = to_onnx(net, metadata)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise RunError(f"the model is not valid ONNX: {error}", path=net.definition.path) from error
    difference = compare_with_onnxruntime(model, net)
    tolerance = QUANTIZED_TOLERANCE if integer_steps_of(net) else TOLERANCE
    if difference is not None and not difference.relative <= tolerance and not net.plain:
        # Winograd's transforms round more than plain sums of products, by which the model is judged.
        plain = Net(
            net.definition, None, net.phase, level=net.state.level, stages=net.state.stages, share=net, plain=True
        )
        difference = compare_with_onnxruntime(model, plain)
    if difference is not None and not difference.relative <= tolerance:
        raise RunError(
            f"the model differs by {difference.relative:.3g} of the largest output in onnxruntime; nothing was written",
            path=net.definition.path,
        )
    return model, difference


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in name) or "net"
