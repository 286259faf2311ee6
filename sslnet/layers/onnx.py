"""How a layer declares its ONNX form. ``sslnet.exchange`` reads and writes models; layers do not depend on it.

A layer that equals one operator lists it in ``Layer.ONNX``, for import and export. A layer that needs several
operators, or different ones depending on its parameters, adds its nodes in ``Layer.to_onnx``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sslnet.blob import Blob

FLOAT, INT64 = 1, 7
"""ONNX element types by their numbers."""


@dataclass(frozen=True)
class OnnxOperator:
    """An ONNX operator that equals a layer.

    name     name of the operator
    fields   attribute -> field of the layer's definition with its value: {"alpha": "elu_param.alpha"}; an enum field
             takes the attribute's word in capitals
    opset    first version of the operator set that includes it
    """

    name: str
    fields: Mapping[str, str] = field(default_factory=dict)
    opset: int = 1


class OnnxGraph(Protocol):
    """The operations of a layer on the ONNX graph during export; values are identified by name."""

    def node(self, operator: str, inputs: list[str], *, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its value, or a list of names with several outputs."""

    def operator(self, operator: OnnxOperator, definition: Any, inputs: list[str]) -> str:
        """Adds the node of an operator with the parameters of a layer's definition; returns the name of its value."""

    def constant(self, values: Any) -> str:
        """Adds a float32 constant that is not a parameter; an array of shape () is a scalar."""

    def integers(self, values: Any) -> str:
        """Adds an int64 constant, as operators take for shapes, axes and sizes."""

    def param(self, layer: Any, index: int, array: np.ndarray | None = None, form: str = "") -> str:
        """Adds a parameter blob of the layer, or ``array``: its values in another layout, which ``form`` names."""

    def need_opset(self, version: int) -> None:
        """Records that a node needs this version of the operator set, or a later one."""

    def fix_batch(self, layer: Any) -> None:
        """Records that the nodes of this layer are valid only for the net's batch size."""

    def reshape(self, layer: Any, value: str, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        """Reshapes the value from shape ``before`` to ``after``."""


def linear(graph: OnnxGraph, value: str, factor: float, summand: float = 0) -> str:
    """Adds factor * value + summand, without nodes for factor 1 or summand 0."""
    if factor == -1:
        value = graph.node("Neg", [value])
    elif factor != 1:
        value = graph.node("Mul", [value, graph.constant(factor)])
    return str(graph.node("Add", [value, graph.constant(summand)]) if summand else value)


def cut(graph: OnnxGraph, layer: Any, value: str, x: Blob, parts: Sequence[tuple[int, int, int]]) -> str:
    """Slices the value from start to stop along each axis. parts: (axis, start, stop)"""
    parts = [(axis, start, stop) for axis, start, stop in parts if (start, stop) != (0, x.shape[axis])]
    if not parts:
        return value
    axes, starts, stops = zip(*parts)
    if 0 in axes:
        graph.fix_batch(layer)
    return str(graph.node("Slice", [value, *map(graph.integers, (starts, stops, axes))]))


def spread_param(graph: OnnxGraph, layer: Any, x: Blob, index: int) -> str:
    """Adds a parameter blob with axes of size 1, so that it broadcasts along the axes of x from ``layer.axis`` on."""
    array = layer.blobs[index].data
    shape = (1,) * layer.axis + array.shape + (1,) * (x.num_axes - layer.axis - array.ndim)
    return graph.param(layer, index, array.reshape(shape), "spread")


def spread_operand(graph: OnnxGraph, layer: Any, inputs: list[str], bottom: Sequence[Blob]) -> str:
    """The learned blob, or the second bottom, with axes of size 1, so that it broadcasts to the first bottom."""
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
    *,
    output_padding: list[int] | None = None,
) -> list[str]:
    """Adds a convolution node for each input.

    weights          the name of the weights; default: the first blob
    output_padding   rows or columns of zeros at the end of a transposed convolution, for each axis
    """
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
    if output_padding is not None and any(output_padding):
        attributes["output_padding"] = output_padding
    return [graph.node(operator, [name, *params], **attributes) for name in inputs]
