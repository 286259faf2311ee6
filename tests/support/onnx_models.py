"""Small ONNX models for tests, and their comparison with what was imported from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compare import blob_difference
from sslnet.exchange.importing import Imported
from sslnet.exchange.runtime import run_in_onnxruntime
from sslnet.net.net import Net

RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def model(
    path: Path, *nodes: Any, constants: dict[str, Any] | None = None, shape: Any = ("N", 6, 8, 8), opset: int = 17
) -> Path:
    """Writes a model from x to y; a node is (operator, inputs, outputs, attributes), a string of names each."""
    made = [
        helper.make_node(op, inputs.split(), outputs.split(), **(attributes[0] if attributes else {}))
        for op, inputs, outputs, *attributes in nodes
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        initializer=tensors,
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(whole), str(path))
    return path


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def same_for_three_images(path: Path, imported: Imported) -> float:
    """What was imported for one image at a time takes more of them when its input says so; the relative difference."""
    imported.message.layer[0].input_param.shape[0].dim[0] = 3
    weights = imported.weights if imported.weights.layer else None
    net = Net(prototxt.parse(prototxt.write(imported.message), pb.NetParameter), weights)
    inputs = {"x": RANDOM.standard_normal(net.blobs["x"].shape).astype(np.float32)}
    theirs = run_in_onnxruntime(str(path), inputs, ["y"])
    assert theirs is not None
    return blob_difference("y", theirs["y"], net.forward(["y"], **inputs)["y"]).relative
