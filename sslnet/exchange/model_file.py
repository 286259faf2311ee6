"""Reads the file of an ONNX model, and the files beside it with its weights, within bounds that follow from their
size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto

from sslnet.errors import DataError, SslnetError, printable
from sslnet.exchange.limits import MOST_DEPTH, MOST_NAME, MOST_NODES, ROOM_PER_BYTE, Room
from sslnet.exchange.source import OnnxModel, domain_of, first_line
from sslnet.files import open_regular, read_bytes
from sslnet.prototxt.values import is_repeated

MOST_FILE = 2**31 - 1
"""Maximum number of bytes of the model's own file, which is the limit of protobuf. Weights may be in other files beside
it."""


def load(path: str | Path, batch: int) -> OnnxModel:
    """Reads a model. raises DataError for a file that is not an ONNX model, or requests more than its size explains"""
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
    trains = _evaluate(model)
    source = OnnxModel(model, batch, Room(len(data) + outside))
    if trains:
        source.evaluated = model.SerializeToString()
    return source


def _evaluate(model: Any) -> bool:
    """Takes BatchNormalization and Dropout out of training mode; returns whether there were such nodes.

    A model exported in training mode then computes what it computes after training, with the stored statistics.
    """
    found = False
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            modes = [a for a in node.attribute if a.name == "training_mode" and a.i]
            for attribute in modes:
                node.attribute.remove(attribute)
            if modes:
                del node.output[1:]
            found = found or bool(modes)
        elif node.op_type == "Dropout" and len(node.input) > 2:
            del node.input[2:]
            found = True
    return found


def _check_texts(message: Any) -> None:
    """Checks that all names are UTF-8, in the message and the messages in it; raises DataError if not."""
    for field, value in message.ListFields():
        values = value if is_repeated(field) else [value]
        if field.message_type is not None:
            for part in values:
                _check_texts(part)
        elif field.type == FieldDescriptor.TYPE_STRING and any(isinstance(text, bytes) for text in values):
            raise DataError(f"a {field.name} in it is not UTF-8")


def _check_size(model: Any) -> None:
    """Checks the size of a model; raises DataError for more nodes than MOST_NODES, recursive functions, and sparse
    tensors."""
    functions = {(domain_of(f.domain), f.name, f.overload): f.node for f in model.functions}
    counted: dict[Any, int] = {}

    def count(nodes: Any, depth: int) -> int:
        """Number of nodes with every call of a function replaced by its nodes."""
        if depth > MOST_DEPTH:
            raise DataError(f"functions or branches that are more than {MOST_DEPTH} deep")
        total = 0
        for node in _with_branches(nodes):
            key = (domain_of(node.domain), node.op_type, node.overload)
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
    """Reads tensors that are stored in files beside the model; returns the bytes of these files.

    Several tensors may share their data, as tied weights do.

    raises DataError for a path that is not a file below the model's folder, or is a link, if a tensor claims more bytes than
    its file has, and if all of them claim more than ROOM_PER_BYTE times the bytes of the files
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
    """All tensors of a model: constants of its graphs, and tensors in attributes."""
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
    """The given nodes, and those of the graphs in their attributes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in _branches(attribute):
                yield from _with_branches(graph.node)


def _branches(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
