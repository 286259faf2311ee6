"""Graph: an ONNX graph during export: nodes, constants, the current value of each blob."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from sslnet.blob import Blob
from sslnet.exchange.attributes import read_field
from sslnet.layers.base import Layer
from sslnet.layers.onnx import OnnxOperator

OPSET = 18
"""Version of the operator set of the model, unless a layer needs a later one."""


class Graph:
    """Nodes and constants in the order in which they are added.

    A blob that layers change in place is a new value each time: ONNX assigns every name once.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.opset = OPSET
        """Version of the operator set that contains all operators so far."""
        self.fixed_batch: str = ""
        """Name of the first layer that only works for the net's batch size; empty: none, any batch size works."""
        self._params: dict[tuple[int, str], str] = {}
        self._prefix = ""
        self._count = 0

    def start_layer(self, layer: Layer) -> None:
        """Starts the nodes of a layer, which are named after it."""
        self._prefix, self._count = layer.name, 0

    def node(self, operator: str, inputs: list[str], *, outputs: Any = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its value, or a list of names with several outputs."""
        names = [self._new_name(operator) for _ in range(outputs)]
        name = f"{self._prefix}/{operator}" if self._count else self._prefix
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(operator, inputs, names, name=f"{name}:{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def operator(self, operator: OnnxOperator, definition: Any, inputs: list[str]) -> str:
        """Adds the node of an operator with the parameters of a layer's definition; returns the name of its value."""
        self.opset = max(self.opset, operator.opset)
        attributes = {name: read_field(definition, path) for name, path in operator.fields.items()}
        return str(self.node(operator.name, inputs, **attributes))

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Adds a constant that is not a parameter: a shape, a factor. An array of shape () is a number."""
        name = self._new_name("constant")
        self.constants[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def integers(self, values: Any) -> str:
        """Adds a constant of int64, for shapes, axes and sizes."""
        return self.constant(values, np.int64)

    def param(self, layer: Layer, index: int, array: np.ndarray | None = None, form: str = "") -> str:
        """Adds a parameter blob of the layer, once for all layers that share it.

        array   the values in another form, and ``form`` the name of that form; default: unchanged
        """
        blob = layer.blobs[index]
        key = (blob.data.__array_interface__["data"][0], form)  # shared blobs have the same memory
        if key not in self._params:
            name = f"{layer.name}.{index}" + (f".{form}" if form else "")
            values = np.ascontiguousarray(blob.data if array is None else array, dtype=np.float32)
            self.constants[name] = numpy_helper.from_array(values, name)
            self._params[key] = name
        return self._params[key]

    def need_opset(self, version: int) -> None:
        """Records that a node needs this version of the operator set, or a later one."""
        self.opset = max(self.opset, version)

    def fix_batch(self, layer: Layer) -> None:
        """Records that the nodes of this layer only work for the net's batch size."""
        self.fixed_batch = self.fixed_batch or layer.name

    def reshape(self, layer: Layer, value: str, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        """Adds a Reshape of the value; the batch axis stays free if it remains the first."""
        dims = list(after)
        if before and after and before[0] == after[0]:
            dims[0] = 0
        else:
            self.fix_batch(layer)
        return str(self.node("Reshape", [value, self.integers(dims)]))

    def rename(self, since: int, old: str, new: str) -> None:
        """Renames a value in the nodes from number ``since`` on."""
        for node in self.nodes[since:]:
            for names in (node.input, node.output):
                for k, name in enumerate(names):
                    if name == old:
                        names[k] = new

    def drop_unused(self) -> None:
        """Removes parameters that no node reads."""
        read = {name for node in self.nodes for name in node.input}
        for key, name in list(self._params.items()):
            if name not in read:
                del self._params[key], self.constants[name]

    def _new_name(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}/{what}_{self._count}"


def value_info(name: str, blob: Blob, free_batch: bool) -> ValueInfoProto:
    """Name, type and shape of an input or output; the batch axis is called N if it is free."""
    shape: list[int | str] = list(blob.shape)
    if free_batch and shape:
        shape[0] = "N"
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
