"""An ONNX model while it is read: what is known of its values before anything runs (constants, shapes), what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sslnet.errors import DataError, DefinitionError
from sslnet.files import MOST_MESSAGE, open_regular

MOST_SHAPE = 1024
"""Values of a constant that may say something about shapes."""
MOST_FOLDED = 1 << 24
"""Values of a constant that is computed ahead; what is larger is no shape arithmetic but a layer."""


class Node:
    """One node: its operator, inputs, outputs and attributes as Python values."""

    def __init__(self, proto: Any, number: int) -> None:
        self.proto = proto
        self.op: str = proto.op_type
        self.inputs: list[str] = list(proto.input)
        self.outputs: list[str] = [name for name in proto.output if name]
        self.attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        self.name: str = proto.name or f"{self.op}_{number}"

    def get(self, name: str, default: Any = None) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def error(self, what: str, hint: str = "") -> DefinitionError:
        return DefinitionError(f"{self.op}: {what}", layer=self.name, hint=hint)


class Source:
    """Nodes of a model whose inputs have been given a size, with all that can be known of their values."""

    def __init__(self, model: Any, batch: int) -> None:
        self.opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.inputs = {
            info.name: _fixed_shape(info, batch) for info in model.graph.input if info.name not in self.constants
        }
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.shapes: dict[str, tuple[int, ...] | None] = {}
        self._types = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
        self._inferred = -1
        self.outputs = [info.name for info in model.graph.output]
        self.opsets = list(model.opset_import)
        self.nodes = [Node(proto, number) for number, proto in enumerate(model.graph.node)]
        self._infer_shapes()

    def fold(self, node: Node) -> bool:
        """Computes a node ahead when all that it needs is known; whether it did."""
        if node.op == "Shape":
            shape = self.shape(node, node.inputs[0])
            part = slice(node.get("start"), node.get("end"))
            self._know(node.outputs[0], np.array(shape, np.int64)[part])
            return True
        needed = [name for name in node.inputs if name]
        if any(isinstance(value, onnx.GraphProto) for value in node.attributes.values()):
            return False
        if not all(name in self.constants for name in needed):
            return False
        if sum(self.constants[name].size for name in needed) > MOST_FOLDED:
            raise node.error("too large to be computed ahead")
        graph = helper.make_graph(
            [node.proto],
            "part",
            [helper.make_tensor_value_info(n, _type(self.constants[n]), None) for n in dict.fromkeys(needed)],
            [helper.make_empty_tensor_value_info(name) for name in node.outputs],
        )
        model = helper.make_model(graph, opset_imports=self.opsets)
        try:
            results = ReferenceEvaluator(model).run(None, {name: self.constants[name] for name in needed})
        except Exception as error:  # an operator that it does not have, values that do not fit
            raise node.error(f"cannot be computed ahead: {str(error).splitlines()[0]}") from error
        for name, value in zip(node.outputs, results):
            self._know(name, np.asarray(value))
        return True

    def inline(self, node: Node) -> list[Node]:
        """The nodes of the branch that an If takes, in its place. raises DefinitionError where that shows only in running"""
        taken = self.constant(node, 0)
        branch = node.get("then_branch" if taken is not None and taken.item() else "else_branch")
        for tensor in branch.initializer:
            self._know(tensor.name, numpy_helper.to_array(tensor))
        results = zip(branch.output, node.proto.output)
        protos = [*branch.node, *(helper.make_node("Identity", [made.name], [name]) for made, name in results)]
        place = self.nodes.index(node)
        self.nodes[place : place + 1] = nodes = [Node(proto, number) for number, proto in enumerate(protos)]
        self._infer_shapes()
        return nodes

    def constant(self, node: Node, index: int) -> np.ndarray | None:
        """The value of an input that is known; None for one that is left out."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.constants:
            raise node.error(f'"{name}" must be known before the net runs, and is computed by it')
        return self.constants[name]

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def shape(self, node: Node, name: str) -> tuple[int, ...]:
        if self.shapes.get(name) is None and self._inferred < len(self.constants):
            self._infer_shapes()  # constants that were computed since may say it
        shape = self.shapes.get(name)
        if shape is None:
            raise node.error(f'the shape of "{name}" cannot be told before the net runs')
        return shape

    def _infer_shapes(self) -> None:
        """What ONNX can tell of shapes from those of the inputs and the constants known so far."""
        small = {name: array for name, array in self.constants.items() if array.size <= MOST_SHAPE}
        shaped = [
            *(helper.make_tensor_value_info(name, self._types[name], shape) for name, shape in self.inputs.items()),
            *(
                helper.make_tensor_value_info(name, _type(array), array.shape)
                for name, array in self.constants.items()
                if name not in small
            ),
        ]
        nodes = [node.proto for node in self.nodes if not all(name in self.constants for name in node.outputs)]
        graph = helper.make_graph(
            nodes,
            "shapes",
            shaped,
            [helper.make_empty_tensor_value_info(name) for name in self.outputs],
            initializer=[numpy_helper.from_array(array, name) for name, array in small.items()],
        )
        model = helper.make_model(graph, opset_imports=self.opsets)
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            raise DataError(f"its shapes do not fit: {str(error).splitlines()[0]}") from error
        self.shapes |= {name: array.shape for name, array in self.constants.items()} | self.inputs
        for info in (*inferred.graph.value_info, *inferred.graph.output):
            dims = info.type.tensor_type.shape.dim
            if info.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                self.shapes[info.name] = tuple(dim.dim_value for dim in dims)
        self._inferred = len(self.constants)

    def _know(self, name: str, value: np.ndarray) -> None:
        self.constants[name] = value
        self.shapes[name] = value.shape


def load(path: str | Path, batch: int) -> Source:
    """raises DataError for a file that is no ONNX model"""
    open_regular(path, limit=MOST_MESSAGE).close()  # no device, no FIFO
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except FileNotFoundError as error:
        raise DataError("there is no such file", path=str(path)) from error
    except Exception as error:  # protobuf's DecodeError, ONNX's ValidationError, missing external data ...
        raise DataError(f"not a model that ONNX can read: {str(error).splitlines()[0]}", path=str(path)) from error
    return Source(model, batch)


def _fixed_shape(info: Any, batch: int) -> tuple[int, ...]:
    """An input's shape with ``batch`` where the first size is free. raises DefinitionError where another one is"""
    dims = info.type.tensor_type.shape.dim
    sizes = [dim.dim_value or (batch if axis == 0 else 0) for axis, dim in enumerate(dims)]
    if not sizes or 0 in sizes:
        raise DefinitionError(
            f'the input "{info.name}" has no fixed size',
            hint="a prototxt needs numbers: write the model with the size of its images",
        )
    return tuple(sizes)


def _type(array: np.ndarray) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
