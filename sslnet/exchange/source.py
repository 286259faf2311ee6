"""OnnxModel: the values of an ONNX model that are known before it runs: constants and shapes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sslnet.errors import DataError, DefinitionError, printable
from sslnet.exchange.limits import (
    MOST_AXES,
    MOST_NAME,
    MOST_SHAPE,
    STEP,
    Room,
)
from sslnet.exchange.node import MOST_INTEGER, OnnxNode

FOLDED = {
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "Cast",
    "CastLike", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Cos", "Cosh", "CumSum",
    "DequantizeLinear", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf",
    "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul", "Max", "Mean", "Min", "Mod", "Mul",
    "Neg", "NonZero", "Not", "OneHot", "Or", "Pad", "Pow", "PRelu", "QuantizeLinear", "Range", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape",
    "Round", "ScatterElements", "ScatterND", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax",
    "Softplus", "Softsign", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile",
    "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
}  # fmt: skip
"""Operators that are computed ahead of time if their inputs are known: the arithmetic of shapes, and operators that
move or transpose weights. Their values bound the time of each (``_work``)."""
NATIVE = {helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in "?bhilqBHILQefdFD"}
"""Types that NumPy has. Casts to other types, FLOAT8 among them, may take one step in Python per value."""
SHAPE_INPUTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Tile": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Inputs whose number of values determines how many axes an output has."""


class GatherElements(OpRun):
    """GatherElements for more than 64 indices along an axis, the limit of ONNX's own implementation."""

    op_domain = ""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray]:
        part = tuple(
            slice(None) if j == axis % data.ndim else slice(0, size) for j, size in enumerate(indices.shape)
        )  # other axes may be shorter than those of the data
        return (np.take_along_axis(data[part], indices, axis),)


class OnnxModel:
    """The nodes of a model whose inputs have been given a size, with everything known of their values."""

    def __init__(self, model: onnx.ModelProto, batch: int, room: Room) -> None:
        self.room = room
        self.opsets = list(model.opset_import)
        self._versions = {domain_of(entry.domain): entry.version for entry in self.opsets}
        self.opset = self._versions.get("", 0)
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, Any] = {}
        self._unknown: dict[str, str] = {}
        """Value -> reason why its shape is not known, if ONNX gives one."""
        for tensor in model.graph.initializer:
            self._know(tensor.name, _array(tensor))
        self.inputs = {
            info.name: _fixed_shape(info, batch) for info in model.graph.input if info.name not in self.constants
        }
        self.stored = set(self.constants)
        """Names of the constants in the file."""
        if not self.inputs:
            raise DefinitionError("the model has no inputs")
        for name, shape in self.inputs.items():
            self._shape(name, helper.make_tensor_type_proto(TensorProto.FLOAT, shape))
        self.evaluated: bytes | None = None
        """The model without training mode, if the file has it."""
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.outputs = [info.name for info in model.graph.output]
        self.nodes = [OnnxNode(proto, number) for number, proto in enumerate(model.graph.node)]
        self._makers: dict[str, OnnxNode] = {}
        for node in self.nodes:
            self._made_by(node)

    # -- ahead of time -------------------------------------------------------------------------------------------------

    def infer(self, node: OnnxNode) -> None:
        """Infers the types and shapes of a node's outputs from those of its inputs and from the constants, as far as
        possible."""
        if node.has_graphs or not all(name in self._types for name in node.inputs if name):
            return
        types, data = {}, {}
        for index, name in enumerate(node.inputs):
            if not name:  # omitted; ONNX 1.16 requests its type nevertheless
                types[""] = onnx.TypeProto()
                continue
            types[name] = self._types[name]
            if self._sets_axes(node, index):
                types[name] = helper.make_tensor_type_proto(types[name].tensor_type.elem_type, None)
            elif name in self.constants and self.constants[name].size <= MOST_SHAPE:
                data[name] = numpy_helper.from_array(self.constants[name], name)
        domain = domain_of(node.proto.domain)
        try:
            schema = onnx.defs.get_schema(node.proto.op_type, self._versions.get(domain, 0), domain)
            made = onnx.shape_inference.infer_node_outputs(schema, node.proto, types, data, opset_imports=self.opsets)
        except Exception as error:  # no such operator, or shapes that do not fit: reported when the shape is needed
            self._unknown |= dict.fromkeys(node.outputs, first_line(error))
            return
        for name, kind in made.items():
            if name and name not in self.constants:
                self._shape(name, kind)

    def _sets_axes(self, node: OnnxNode, index: int) -> bool:
        """Whether an input may request an output of more than MOST_AXES axes, for which a shape of millions would be
        created."""
        shape = self.shapes.get(node.inputs[index])
        if shape is not None and not (len(shape) == 1 and shape[0] > MOST_AXES):
            return False
        if node.op in SHAPE_INPUTS or node.op in FOLDED:
            return index in SHAPE_INPUTS.get(node.op, ())
        return self._types[node.inputs[index]].tensor_type.elem_type in (TensorProto.INT64, TensorProto.INT32)

    def fold(self, node: OnnxNode) -> bool:
        """Computes a node ahead of time if all its inputs are known, and there is room for it; returns whether it did.

        The shapes of its outputs are known before it is computed (``infer``).
        """
        if node.op == "Shape":
            shape = self.shape(node, node.input(0))
            part = slice(node.integer("start", 0), node.integer("end") if node.has("end") else None)
            self._know(node.result, np.array(shape, np.int64)[part])
            return True
        needed = [name for name in node.inputs if name]
        if not self.folds(node):
            return False
        for name in node.outputs:
            self.room.take(node, self._folded_shape(node, name), self._item(node, name))
        self.room.work(node, self._work(node))
        graph = helper.make_graph(
            [node.proto],
            "part",
            [helper.make_tensor_value_info(n, _type(self.constants[n]), None) for n in dict.fromkeys(needed)],
            [helper.make_empty_tensor_value_info(name) for name in node.outputs],
        )
        model = helper.make_model(graph, opset_imports=self.opsets)
        try:
            results = ReferenceEvaluator(model, new_ops=[GatherElements]).run(
                None, {name: self.constants[name] for name in needed}
            )
        except Exception as error:  # an operator that ONNX does not implement, or values that do not fit
            raise node.error(f"cannot be computed ahead: {first_line(error)}") from error
        for name, value in zip(node.outputs, results):
            self._know(name, np.asarray(value))
        return True

    def folds(self, node: OnnxNode, besides: Collection[str] = ()) -> bool:
        """Whether a node is computed ahead of time. besides: values that count as known, although they are not"""
        if node.op == "Shape":
            return True
        if node.op in ("Softmax", "LogSoftmax") and self.opset < 13:  # over all axes behind one; computed over one
            return False
        return node.op in FOLDED and not node.has_graphs and not self.unknown(node, besides)

    def unknown(self, node: OnnxNode, besides: Collection[str] = ()) -> bool:
        """Whether a node reads an unknown value."""
        return not all(name in self.constants or name in besides for name in node.inputs if name)

    def _work(self, node: OnnxNode) -> int:
        """The time to compute a node, in bytes that it reads and writes.

        Axes of size 0 count as 1: there are no values, but some operators iterate over the other axes nevertheless.
        """
        values = [self.constants[name] for name in node.inputs if name]
        sizes = [(value.shape, value.itemsize, _type(value)) for value in values]
        sizes += [
            (self._folded_shape(node, name), self._item(node, name), self._element(name)) for name in node.outputs
        ]
        work = sum(_product(shape) * (item if kind in NATIVE else STEP) for shape, item, kind in sizes)
        if node.op in ("MatMul", "Gemm"):
            first = values[0]
            depth = math.prod(first.shape[:1] if node.op == "Gemm" and node.flag("transA") else first.shape[-1:])
            multiplications = _product(sizes[-1][0]) * depth * first.itemsize
            work += multiplications // 16 if first.dtype in (np.float32, np.float64) else multiplications * 4
        elif node.op in ("GatherND", "ScatterND"):  # a step for each index, which takes or sets a part of the data
            data, indices = values[:2]
            part = _product(data.shape[math.prod(indices.shape[-1:]) :]) if indices.ndim else 1
            work += _product(indices.shape[:-1]) * (STEP + part * data.itemsize)
        elif node.op == "ScatterElements":
            work += _product(values[1].shape) * STEP
        elif node.op == "Erf":
            work += _product(values[0].shape) * STEP // 8
        return work

    def _folded_shape(self, node: OnnxNode, name: str) -> tuple[int, ...]:
        """The shape of the value to be computed, or the largest that it can have."""
        if node.op == "NonZero":
            values = self.constants[node.input(0)]
            return (max(values.ndim, 1), values.size)
        if node.op == "OneHot" and self.constants[node.input(1)].size == 1:
            return (*self.constants[node.input(0)].shape, max(int(self.constants[node.input(1)].item()), 0))
        return self.shape(node, name)

    def _item(self, node: OnnxNode, name: str) -> int:
        """Number of bytes of the value to be computed."""
        kind = self._element(name)
        if kind in (TensorProto.UNDEFINED, TensorProto.STRING):
            raise node.error("only numbers are computed ahead")
        return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)

    def _element(self, name: str) -> int:
        """The element type of a value, UNDEFINED if it is not known."""
        return int(self._types[name].tensor_type.elem_type if name in self._types else TensorProto.UNDEFINED)

    def inline(self, node: OnnxNode) -> list[OnnxNode]:
        """The nodes of the branch that an If selects. raises DefinitionError if that is known only at run time"""
        taken = self.constant(node, 0)
        if taken is None or taken.size != 1:
            raise node.error("its condition is not one value")
        branch = node.graph("then_branch" if taken.item() else "else_branch")
        for tensor in branch.initializer:
            self._know(tensor.name, _array(tensor))
        results = zip(branch.output, node.proto.output)
        protos = [*branch.node, *(helper.make_node("Identity", [made.name], [name]) for made, name in results)]
        place = self.nodes.index(node)
        self.nodes[place : place + 1] = nodes = [OnnxNode(proto, number) for number, proto in enumerate(protos)]
        for made in nodes:
            self._made_by(made)
        return nodes

    def _made_by(self, node: OnnxNode) -> None:
        self._makers.update(dict.fromkeys(node.outputs, node))

    def maker(self, value: str) -> OnnxNode | None:
        """The node that computes a value; None for inputs and constants of the file."""
        return self._makers.get(value)

    # -- what is known -------------------------------------------------------------------------------------------------

    def constant(self, node: OnnxNode, index: int) -> np.ndarray | None:
        """The value of an input that is known; None for an omitted input."""
        if not node.has_input(index):
            return None
        name = node.inputs[index]
        if name not in self.constants:
            raise node.error(f'"{name}" must be known before the net runs, and is computed by it')
        return self.constants[name]

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def shape(self, node: OnnxNode, name: str) -> tuple[int, ...]:
        shape = self.shapes.get(name)
        if shape is None:
            why = self._unknown.get(name, "")
            raise node.error(f'the shape of "{name}" is unknown before the net runs' + (f": {why}" if why else ""))
        return shape

    def same(self, value: str, other: str) -> None:
        """Records that one value is another, which is a constant."""
        self._know(value, self.constants[other])

    def _know(self, name: str, value: np.ndarray) -> None:
        self.constants[name] = value
        self._shape(name, helper.make_tensor_type_proto(_type(value), value.shape))

    def _shape(self, name: str, kind: Any) -> None:
        """Records the type of a value, and its shape if that is known."""
        if not kind.HasField("tensor_type"):
            return
        self._types[name] = kind
        dims = kind.tensor_type.shape.dim
        if kind.tensor_type.HasField("shape") and all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
            self.shapes[name] = tuple(dim.dim_value for dim in dims)


def first_line(error: Exception) -> str:
    """The first line of an error of another library, with bounded length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable((lines or [type(error).__name__])[0][:300])


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    name = printable(tensor.name[:MOST_NAME])
    if tensor.data_type not in TensorProto.DataType.values():
        raise DataError(f'the constant "{name}" is of an unknown type, number {tensor.data_type}')
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # data that are not as long as the shape says
        raise DataError(f'the constant "{name}": {first_line(error)}') from error


def domain_of(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _fixed_shape(info: onnx.ValueInfoProto, batch: int) -> tuple[int, ...]:
    """An input's shape, with ``batch`` if the first size is free. raises DefinitionError if another size is free"""
    name, kind = printable(info.name[:MOST_NAME]), info.type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        known = kind in TensorProto.DataType.values()
        what = f"values of type {TensorProto.DataType.Name(kind)}" if known and kind else "no numbers"
        raise DefinitionError(f'the input "{name}" takes {what}; a net takes FLOAT')
    dims = info.type.tensor_type.shape.dim
    sizes = [dim.dim_value or (batch if axis == 0 else 0) for axis, dim in enumerate(dims)]
    if not sizes or min(sizes) < 1:
        raise DefinitionError(
            f'the input "{name}" has no fixed size',
            hint="a prototxt needs numbers: write the model with the size of its images",
        )
    if len(sizes) > MOST_AXES or math.prod(sizes) > MOST_INTEGER:
        raise DefinitionError(
            f'the input "{name}" has {"x".join(map(str, sizes[:MOST_AXES]))} values, more than a blob may'
        )
    return tuple(sizes)


def _product(shape: Iterable[int]) -> int:
    """Number of values of a shape, axes of size 0 counted as 1."""
    return math.prod(max(size, 1) for size in shape)


def _type(array: np.ndarray) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
