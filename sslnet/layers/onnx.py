"""How a layer says what it is in ONNX. Files and models belong to ``sslnet.exchange``, of which layers know nothing.

A layer that is one operator lists it in ``Layer.ONNX``: that is enough to write it and to read it. One that takes several
operators, or other ones for other parameters, writes its nodes in ``Layer.to_onnx``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sslnet.blob import Blob

FLOAT, INT64 = 1, 7
"""Types of values, by the numbers that ONNX gives them."""


@dataclass(frozen=True)
class OnnxOperator:
    """An operator of ONNX that computes what a layer computes, alone.

    name     of the operator
    fields   attribute -> field of the layer's definition that holds its value: {"alpha": "elu_param.alpha"}; the values of
             an enum are the attribute's words in capitals
    opset    first version of the operator set that has it
    """

    name: str
    fields: Mapping[str, str] = field(default_factory=dict)
    opset: int = 1


class OnnxGraph(Protocol):
    """What a layer may do to the ONNX graph that is being written. Values have names, blobs are what the layer has."""

    def node(self, operator: str, inputs: list[str], *, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its value, or a list of names with several outputs."""

    def operator(self, operator: OnnxOperator, definition: Any, inputs: list[str]) -> str:
        """Adds the node of an operator with the parameters of a layer's definition; returns the name of its value."""

    def constant(self, values: Any) -> str:
        """A constant of float32 that is no parameter. An array of shape () is a number."""

    def integers(self, values: Any) -> str:
        """A constant of int64: what operators take as shapes, axes, sizes."""

    def param(self, layer: Any, index: int, array: np.ndarray | None = None, form: str = "") -> str:
        """A parameter blob of the layer, or ``array``: its values in another form, which has a name."""

    def fix_batch(self, layer: Any) -> None:
        """Says that what is written for this layer holds for the net's batch size alone."""

    def reshape(self, layer: Any, value: str, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        """The value under another shape."""


def linear(graph: OnnxGraph, value: str, factor: float, summand: float = 0) -> str:
    """factor value + summand, by as few nodes as that takes."""
    if factor != 1:
        value = graph.node("Mul", [value, graph.constant(factor)])
    return str(graph.node("Add", [value, graph.constant(summand)]) if summand else value)


def cut(graph: OnnxGraph, layer: Any, value: str, x: Blob, parts: Sequence[tuple[int, int, int]]) -> str:
    """The value from start to stop along each axis. parts: (axis, start, stop)"""
    parts = [(axis, start, stop) for axis, start, stop in parts if (start, stop) != (0, x.shape[axis])]
    if not parts:
        return value
    axes, starts, stops = zip(*parts)
    if 0 in axes:
        graph.fix_batch(layer)
    return str(graph.node("Slice", [value, *map(graph.integers, (starts, stops, axes))]))


def spread_param(graph: OnnxGraph, layer: Any, x: Blob, index: int) -> str:
    """A parameter blob with axes of size 1 so that it lies along the axes of x from ``layer.axis`` on."""
    array = layer.blobs[index].data
    shape = (1,) * layer.axis + array.shape + (1,) * (x.num_axes - layer.axis - array.ndim)
    return graph.param(layer, index, array.reshape(shape), "spread")


def spread_operand(graph: OnnxGraph, layer: Any, inputs: list[str], bottom: Sequence[Blob]) -> str:
    """The learned blob, or the second bottom, with axes of size 1 so that it lies along the right axes of the first."""
    if len(bottom) == 1:
        return spread_param(graph, layer, bottom[0], 0)
    end = layer.axis + bottom[1].num_axes
    new = [*range(layer.axis), *range(end, bottom[0].num_axes)]
    return str(graph.node("Unsqueeze", [inputs[1], graph.integers(new)])) if new else inputs[1]


def convolutions(
    graph: OnnxGraph,
    layer: Any,
    operator: str,
    inputs: list[str],
    kernel: list[int],
    pads: list[int],
    weights: str = "",
) -> list[str]:
    """A node for each input of a layer with a window. weights: the name of its weights; default: the first blob"""
    if layer.axis != 1:
        raise layer.not_in_onnx(f"a convolution along axis {layer.axis}")
    params = [weights or graph.param(layer, 0), *(graph.param(layer, j) for j in range(1, len(layer.blobs)))]
    attributes = {
        "kernel_shape": kernel,
        "strides": list(layer.window.stride),
        "pads": pads,
        "dilations": list(layer.window.dilation),
        "group": layer.group,
    }
    return [graph.node(operator, [name, *params], **attributes) for name in inputs]
