"""Layers with whole numbers in ONNX: QuantizeLinear and DequantizeLinear around the operators (QDQ).

Weights are int8 with a scale for each filter, biases int32, activations uint8. onnxruntime replaces a DequantizeLinear,
operator, QuantizeLinear by one integer operator. Its rounding of a sum may differ by one step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from sslnet.exchange.graph import Graph
from sslnet.kernels.quantized.elementwise import ByteScale
from sslnet.layers.base import Layer
from sslnet.layers.convolution import Convolution
from sslnet.net.net import Net
from sslnet.net.steps.integer.base import IntegerStep
from sslnet.net.steps.integer.others import IntegerReLU, PassedStep
from sslnet.net.steps.integer.weighted import WeightedStep


def integer_steps_of(net: Net) -> dict[int, IntegerStep]:
    """The layers of a net that run with whole numbers, by number."""
    steps = net.plan(fused=True).steps
    return {i: step for i, step in enumerate(steps) if isinstance(step, IntegerStep)}


def input_scale(net: Net, name: str) -> tuple[float, float] | None:
    """The range that an input of the net is quantised with; None if no quantised layer reads it."""
    for step in integer_steps_of(net).values():
        for source in step.sources:
            if not source.made and source.blob.owner("data") is net.blobs[name].owner("data"):
                scale = source.value.scale
                return -scale.zero * scale.scale, (scale.top - scale.zero) * scale.scale
    return None


def quantized_to_onnx(graph: Graph, layer: Layer, step: IntegerStep, inputs: list[str]) -> list[str]:
    """Adds the nodes of a layer with whole numbers; returns the names of its values, as ``Layer.to_onnx``."""
    if isinstance(step, PassedStep) or (isinstance(step, IntegerReLU) and step.same):
        return [inputs[0]]
    values = [
        name if source.made else _rounded(graph, name, source.value.scale) for name, source in zip(inputs, step.sources)
    ]
    since = len(graph.nodes)
    (result,) = layer.to_onnx(graph, values, step.bottom, step.top)
    if isinstance(step, WeightedStep):
        _put_integers(graph, layer, step, since)
    return [result if step.target is None else _rounded(graph, result, step.target.scale)]


def _rounded(graph: Graph, value: str, scale: ByteScale) -> str:
    """The value rounded to bytes and converted back."""
    if scale.top < 255:
        ends = [(limit - scale.zero) * scale.scale for limit in (0, scale.top)]
        value = graph.node("Clip", [value, *(graph.constant(end) for end in ends)])
    params = [graph.constant(scale.scale), graph.constant(scale.zero, np.uint8)]
    return str(graph.node("DequantizeLinear", [graph.node("QuantizeLinear", [value, *params]), *params]))


def _put_integers(graph: Graph, layer: Any, step: WeightedStep, since: int) -> None:
    """Replaces the weights and the bias of the layer's node, which is among those from number ``since`` on."""
    if isinstance(layer, Convolution) and layer.kept is not None:
        raise layer.not_in_onnx("a quantised convolution with kept columns")
    (number,) = [i for i in range(since, len(graph.nodes)) if graph.nodes[i].op_type in ("Conv", "Gemm")]
    node = graph.nodes.pop(number)
    found = step.integers()
    shape = step.geometry.weight_shape if node.op_type == "Conv" else found.weights.numbers.shape
    given = {
        "numbers": np.ascontiguousarray(found.weights.numbers).reshape(shape),
        "step": found.weights.steps,
        "zero": np.zeros(len(found.weights.steps), np.int8),
    }
    names = [_constant(graph, f"{layer.name}.0.{name}", array) for name, array in given.items()]
    node.input[1] = graph.node("DequantizeLinear", names, axis=0)
    if len(layer.blobs) > 1:
        arrays = {"numbers": found.bias.astype(np.int32), "step": found.unit.astype(np.float32)}
        names = [_constant(graph, f"{layer.name}.1.{name}", array) for name, array in arrays.items()]
        node.input[2] = graph.node("DequantizeLinear", names, axis=0)
    if node.op_type == "Gemm":
        kept = [attribute for attribute in node.attribute if attribute.name != "transB"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("transB", 1)])
    graph.nodes.append(node)
    graph.drop_unused()


def _constant(graph: Graph, name: str, array: np.ndarray) -> str:
    graph.constants[name] = numpy_helper.from_array(array, name)
    return name
