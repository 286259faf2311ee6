"""An ONNX model while it is read: what is known of its values before anything runs (constants, shapes), what is not."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sslnet.errors import DataError, DefinitionError, SslnetError, printable
from sslnet.exchange.limits import (
    MOST_AXES,
    MOST_DEPTH,
    MOST_NAME,
    MOST_NODES,
    MOST_SHAPE,
    ROOM_PER_BYTE,
    STEP,
    Room,
)
from sslnet.exchange.node import MOST_INTEGER, OnnxNode
from sslnet.files import open_regular, read_bytes
from sslnet.prototxt.values import is_repeated

MOST_FILE = 2**31 - 1
"""Bytes of the model's own file: protobuf reads no more. Weights may stand in others beside it."""

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
"""Operators that are computed ahead of time when what they read is known: the arithmetic of shapes, and what moves or
turns weights. Each takes time that its values bound (``_work``)."""
NATIVE = {helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in "?bhilqBHILQefdFD"}
"""Types that NumPy has. Casts to others, FLOAT8 among them, may take a step in Python for each value."""
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
"""Inputs whose number of values says how many axes an output has."""


class GatherElements(OpRun):
    """In place of ONNX's own, which takes no more than 64 places along an axis."""

    op_domain = ""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray]:
        part = tuple(
            slice(None) if j == axis % data.ndim else slice(0, size) for j, size in enumerate(indices.shape)
        )  # other axes may be shorter than those of the data
        return (np.take_along_axis(data[part], indices, axis),)


class OnnxModel:
    """Nodes of a model whose inputs have been given a size, with all that can be known of their values."""

    def __init__(self, model: Any, batch: int, room: Room) -> None:
        self.room = room
        self.opsets = list(model.opset_import)
        self._versions = {_domain(entry.domain): entry.version for entry in self.opsets}
        self.opset = self._versions.get("", 0)
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, Any] = {}
        self._unknown: dict[str, str] = {}
        """Why the shape of a value is not known, where ONNX says so."""
        for tensor in model.graph.initializer:
            self._know(tensor.name, _array(tensor))
        self.inputs = {
            info.name: _fixed_shape(info, batch) for info in model.graph.input if info.name not in self.constants
        }
        if not self.inputs:
            raise DefinitionError("the model has no inputs")
        for name, shape in self.inputs.items():
            self._shape(name, helper.make_tensor_type_proto(TensorProto.FLOAT, shape))
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.outputs = [info.name for info in model.graph.output]
        self.nodes = [OnnxNode(proto, number) for number, proto in enumerate(model.graph.node)]

    # -- ahead of time -------------------------------------------------------------------------------------------------

    def infer(self, node: OnnxNode) -> None:
        """Finds the types and shapes of a node's outputs, as far as those of its inputs and the constants tell them."""
        if node.has_graphs or not all(name in self._types for name in node.inputs if name):
            return
        types, data = {}, {}
        for index, name in enumerate(node.inputs):
            if not name:  # left out; ONNX 1.16 asks for its type all the same
                types[""] = onnx.TypeProto()
                continue
            types[name] = self._types[name]
            if self._sets_axes(node, index):
                types[name] = helper.make_tensor_type_proto(types[name].tensor_type.elem_type, None)
            elif name in self.constants and self.constants[name].size <= MOST_SHAPE:
                data[name] = numpy_helper.from_array(self.constants[name], name)
        domain = _domain(node.proto.domain)
        try:
            schema = onnx.defs.get_schema(node.proto.op_type, self._versions.get(domain, 0), domain)
            made = onnx.shape_inference.infer_node_outputs(schema, node.proto, types, data, opset_imports=self.opsets)
        except Exception as error:  # no such operator, shapes that do not fit: told where the shape is needed
            self._unknown |= dict.fromkeys(node.outputs, first_line(error))
            return
        for name, kind in made.items():
            if name and name not in self.constants:
                self._shape(name, kind)

    def _sets_axes(self, node: OnnxNode, index: int) -> bool:
        """Whether an input may say that an output has more than MOST_AXES axes; a shape of millions would be made."""
        shape = self.shapes.get(node.inputs[index])
        if shape is not None and not (len(shape) == 1 and shape[0] > MOST_AXES):
            return False
        if node.op in SHAPE_INPUTS or node.op in FOLDED:
            return index in SHAPE_INPUTS.get(node.op, ())
        return self._types[node.inputs[index]].tensor_type.elem_type in (TensorProto.INT64, TensorProto.INT32)

    def fold(self, node: OnnxNode) -> bool:
        """Computes a node ahead when all that it needs is known, and there is room for it; whether it did.

        Its outputs' shapes are known before it is computed (``infer``).
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
        except Exception as error:  # an operator that it does not have, values that do not fit
            raise node.error(f"cannot be computed ahead: {first_line(error)}") from error
        for name, value in zip(node.outputs, results):
            self._know(name, np.asarray(value))
        return True

    def folds(self, node: OnnxNode, besides: Collection[str] = ()) -> bool:
        """Whether a node is one that is computed ahead. besides: values that count as known, though they are not"""
        if node.op == "Shape":
            return True
        if node.op in ("Softmax", "LogSoftmax") and self.opset < 13:  # over all axes behind one; computed over one
            return False
        return node.op in FOLDED and not node.has_graphs and not self.unknown(node, besides)

    def unknown(self, node: OnnxNode, besides: Collection[str] = ()) -> bool:
        """Whether a node reads a value that is not known."""
        return not all(name in self.constants or name in besides for name in node.inputs if name)

    def _work(self, node: OnnxNode) -> int:
        """Time that a node takes to be computed, in bytes that are read and written in it.

        Axes of size 0 count as 1: there are no values, but some operators go through the other axes all the same.
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
        """The shape of what is about to be computed, or the largest that it can have."""
        if node.op == "NonZero":
            values = self.constants[node.input(0)]
            return (max(values.ndim, 1), values.size)
        if node.op == "OneHot" and self.constants[node.input(1)].size == 1:
            return (*self.constants[node.input(0)].shape, max(int(self.constants[node.input(1)].item()), 0))
        return self.shape(node, name)

    def _item(self, node: OnnxNode, name: str) -> int:
        """Bytes of a value that is about to be computed."""
        kind = self._element(name)
        if kind in (TensorProto.UNDEFINED, TensorProto.STRING):
            raise node.error("only numbers are computed ahead")
        return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)

    def _element(self, name: str) -> int:
        """The type of the numbers of a value, UNDEFINED where it is not known."""
        return int(self._types[name].tensor_type.elem_type if name in self._types else TensorProto.UNDEFINED)

    def inline(self, node: OnnxNode) -> list[OnnxNode]:
        """The nodes of the branch that an If takes, in its place. raises DefinitionError where that shows only in running"""
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
        return nodes

    # -- what is known -------------------------------------------------------------------------------------------------

    def constant(self, node: OnnxNode, index: int) -> np.ndarray | None:
        """The value of an input that is known; None for one that is left out."""
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
        """One value is another, which is a constant."""
        self._know(value, self.constants[other])

    def _know(self, name: str, value: np.ndarray) -> None:
        self.constants[name] = value
        self._shape(name, helper.make_tensor_type_proto(_type(value), value.shape))

    def _shape(self, name: str, kind: Any) -> None:
        """Takes down the type of a value, and its shape where that is known."""
        if not kind.HasField("tensor_type"):
            return
        self._types[name] = kind
        dims = kind.tensor_type.shape.dim
        if kind.tensor_type.HasField("shape") and all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
            self.shapes[name] = tuple(dim.dim_value for dim in dims)


# -- the file ----------------------------------------------------------------------------------------------------------


def load(path: str | Path, batch: int) -> OnnxModel:
    """raises DataError for a file that is no ONNX model, or that asks for more than its size explains"""
    data = read_bytes(path, limit=MOST_FILE)
    try:
        model = onnx.load_model_from_string(data)
        _check_texts(model)
        _check_size(model)
        outside = _load_outside(model, Path(path))
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except SslnetError:
        raise
    except Exception as error:  # protobuf's DecodeError, ONNX's ValidationError ...
        raise DataError(f"not a model that ONNX can read: {first_line(error)}", path=str(path)) from error
    return OnnxModel(model, batch, Room(len(data) + outside))


def _check_texts(message: Any) -> None:
    """raises DataError for a name that is not UTF-8: it comes as bytes, in the message or one in it"""
    for field, value in message.ListFields():
        values = value if is_repeated(field) else [value]
        if field.message_type is not None:
            for part in values:
                _check_texts(part)
        elif field.type == FieldDescriptor.TYPE_STRING and any(isinstance(text, bytes) for text in values):
            raise DataError(f"a {field.name} in it is not UTF-8")


def _check_size(model: Any) -> None:
    """raises DataError for more nodes than MOST_NODES, functions that call themselves, and tensors that claim to be sparse"""
    functions = {(_domain(f.domain), f.name, f.overload): f.node for f in model.functions}
    counted: dict[Any, int] = {}

    def count(nodes: Any, depth: int) -> int:
        """Nodes when every call of a function is replaced by its nodes."""
        if depth > MOST_DEPTH:
            raise DataError(f"functions or branches that are more than {MOST_DEPTH} deep")
        total = 0
        for node in _with_branches(nodes):
            key = (_domain(node.domain), node.op_type, node.overload)
            if key in functions and key not in counted:
                counted[key] = count(functions[key], depth + 1)
            total += counted.get(key, 1)
            if total > MOST_NODES:
                raise DataError(f"a model of more than {MOST_NODES} nodes")
        return total

    for nodes in (model.graph.node, *functions.values()):
        count(nodes, 0)
    attributes = (a for node in _all_nodes(model) for a in node.attribute)
    if any(graph.sparse_initializer for graph in _graphs(model)) or any(
        attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in attributes
    ):
        raise DataError("sparse tensors are not supported")


def _load_outside(model: Any, path: Path) -> int:
    """Reads tensors that stand in files beside the model; returns the bytes of these files.

    Several tensors may share their data, as tied weights do.

    raises DataError for what is no file below the model's folder, or is a link, where a tensor claims more bytes than
    its file has, and where all of them claim more than ROOM_PER_BYTE times those of the files
    """
    folder, sizes, claimed = Path(os.path.realpath(path.parent)), dict[str, int](), 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        keys = {entry.key: entry.value for entry in tensor.external_data}
        name, place = printable(tensor.name[:MOST_NAME]), folder / keys.get("location", "")
        inside = "\0" not in str(place) and place != folder and place.is_relative_to(folder)
        if not inside or place.resolve() != place:
            raise DataError(
                f'the data of "{name}" must be a file in the folder of the model, and no link',
                path=str(path),
                hint="copy the model and its data into one folder",
            )
        start = int(keys.get("offset") or 0)
        with open_regular(place) as file:
            size = sizes[str(place)] = os.fstat(file.fileno()).st_size
            length = int(keys["length"]) if keys.get("length") else size - start
            claimed += length
            most = ROOM_PER_BYTE * sum(sizes.values())
            if start < 0 or length < 0 or start + length > size or claimed > most:
                raise DataError(f'"{name}" has more data than the files beside the model hold', path=str(path))
            file.seek(start)
            tensor.raw_data = file.read(length)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return sum(sizes.values())


def _tensors(model: Any) -> Iterator[Any]:
    """All tensors of a model: constants of its graphs, and those that attributes hold."""
    for graph in _graphs(model):
        yield from graph.initializer
    for node in _all_nodes(model):
        for attribute in node.attribute:
            yield from [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]


def _graphs(model: Any) -> Iterator[Any]:
    """The graph of a model, and the branches of its nodes."""
    yield model.graph
    for node in _all_nodes(model):
        for attribute in node.attribute:
            yield from _branches(attribute)


def _all_nodes(model: Any) -> Iterator[Any]:
    """The nodes of the model, of the branches in it and of its functions."""
    yield from _with_branches(model.graph.node)
    for function in model.functions:
        yield from _with_branches(function.node)


def _with_branches(nodes: Any) -> Iterator[Any]:
    """Nodes, and those of the graphs that are parts of them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in _branches(attribute):
                yield from _with_branches(graph.node)


def _branches(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line of bounded length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable((lines or [type(error).__name__])[0][:300])


def _array(tensor: Any) -> np.ndarray:
    name = printable(tensor.name[:MOST_NAME])
    if tensor.data_type not in TensorProto.DataType.values():
        raise DataError(f'the constant "{name}" is of an unknown type, number {tensor.data_type}')
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # data that are not as long as the shape says
        raise DataError(f'the constant "{name}": {first_line(error)}') from error


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _fixed_shape(info: Any, batch: int) -> tuple[int, ...]:
    """An input's shape with ``batch`` where the first size is free. raises DefinitionError where another one is"""
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
    """How many values there are of a shape, axes of size 0 counted as 1."""
    return math.prod(max(size, 1) for size in shape)


def _type(array: np.ndarray) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
