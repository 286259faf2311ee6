"""Operators and groups of operators that PyTorch's exporters write: what onnxruntime computes, sslnet computes, and what was
imported goes back to few operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from sslnet import sslnet_pb2 as pb
from sslnet.exchange.export import export
from sslnet.exchange.importing import from_onnx
from sslnet.net.net import Net
from sslnet.prototxt import Definition
from tests.support.onnx_models import ints, model, same_for_three_images, weights

NONE = np.zeros(0, "f4")
ROOT = np.float32(np.sqrt(0.5))
CUBE = {
    "c": np.float32(0.044715),
    "three": np.float32(3),
    "k": np.float32(np.sqrt(2 / np.pi)),
    "one": np.float32(1),
    "half": np.float32(0.5),
}
HALVES = {"r": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
LAST = {"g": weights(6), "b": weights(6)}
SCALES = np.array([1, 1, 1.5, 0.5], "f4")


def resize(mode: str, how: str, **more: Any) -> tuple[list[Any], dict[str, Any]]:
    attributes = {"mode": mode, "coordinate_transformation_mode": how, **more}
    return [("Resize", "x none f", "y", attributes)], {"none": NONE, "f": SCALES}


def to_size(
    *size: int, mode: str = "linear", how: str = "pytorch_half_pixel", **more: Any
) -> tuple[list[Any], dict[str, Any]]:
    attributes = {"mode": mode, "coordinate_transformation_mode": how, **more}
    return [("Resize", "x none none s", "y", attributes)], {"none": NONE, "s": ints(2, 6, *size)}


CASES: dict[str, tuple[list[Any], dict[str, Any], list[str]]] = {
    # name: nodes, constants, layers
    "gelu": ([("Div", "x r", "a"), ("Erf", "a", "b"), ("Add", "b one", "c"), ("Mul", "x c", "d"), ("Mul", "d half", "y")], HALVES, ["GELU"]),
    "gelu, half first": ([("Mul", "x half", "a"), ("Mul", "x r", "b"), ("Erf", "b", "c"), ("Add", "one c", "d"), ("Mul", "a d", "y")], {**HALVES, "r": ROOT}, ["GELU"]),
    "gelu by tanh": (
        [("Pow", "x three", "a"), ("Mul", "a c", "b"), ("Add", "x b", "d"), ("Mul", "d k", "e"), ("Tanh", "e", "f"), ("Add", "f one", "g"), ("Mul", "x g", "h"), ("Mul", "h half", "y")],
        CUBE, ["GELU"],
    ),
    "no gelu": ([("Tanh", "x", "a"), ("Add", "a one", "c"), ("Mul", "x c", "d"), ("Mul", "d half", "y")], HALVES, ["TanH", "Power", "Eltwise", "Power"]),
    "hard swish": ([("Add", "x t", "a"), ("Clip", "a l h", "b"), ("Div", "b h", "c"), ("Mul", "x c", "y")], {"t": np.float32(3), "l": np.float32(0), "h": np.float32(6)}, ["HardSwish"]),
    "hard swish, divided last": ([("Add", "x t", "a"), ("Clip", "a l h", "b"), ("Mul", "x b", "c"), ("Div", "c h", "y")], {"t": np.float32(3), "l": np.float32(0), "h": np.float32(6)}, ["HardSwish"]),
    "hard sigmoid": ([("Add", "x t", "a"), ("Clip", "a l h", "b"), ("Div", "b h", "y")], {"t": np.float32(3), "l": np.float32(0), "h": np.float32(6)}, ["HardSigmoid"]),
    "hard swish of hard sigmoid": ([("HardSigmoid", "x", "a", {"alpha": 1 / 6, "beta": 0.5}), ("Mul", "x a", "y")], {}, ["HardSwish"]),
    "mish": ([("Softplus", "x", "a"), ("Tanh", "a", "b"), ("Mul", "x b", "y")], {}, ["Mish"]),
    "part of a pattern is read": (
        [("Softplus", "x", "a"), ("Tanh", "a", "b"), ("Mul", "x b", "c"), ("Add", "b c", "y")], {}, ["BNLL", "TanH", "Mish", "Eltwise"],
    ),
    "layer norm of the last axis": ([("LayerNormalization", "x g b", "y", {"axis": -1, "epsilon": 1e-3})], {"g": weights(8), "b": weights(8)}, ["LayerNorm", "Scale"]),
    "layer norm of an image": ([("LayerNormalization", "x g b", "y", {"axis": 1})], {"g": weights(6, 8, 8), "b": weights(6, 8, 8)}, ["LayerNorm", "Scale"]),
    "layer norm of channels": (
        [("Transpose", "x", "a", {"perm": [0, 2, 3, 1]}), ("LayerNormalization", "a g b", "c"), ("Transpose", "c", "y", {"perm": [0, 3, 1, 2]})], LAST,
        ["Permute", "LayerNorm", "Scale", "Permute"],
    ),
    "a block of ConvNeXt": (
        [
            ("Conv", "x d", "z", {"group": 6, "pads": [1, 1, 1, 1]}), ("Transpose", "z", "a", {"perm": [0, 2, 3, 1]}), ("LayerNormalization", "a g b", "c"),
            ("MatMul", "c u", "e"), ("Add", "e p", "f"), ("Relu", "f", "h"), ("MatMul", "h v", "i"), ("Mul", "g i", "j"), ("Transpose", "j", "k", {"perm": [0, 3, 1, 2]}), ("Add", "x k", "y"),
        ],
        {**LAST, "d": weights(6, 1, 3, 3), "u": weights(6, 12), "p": weights(12), "v": weights(12, 6)},
        ["Convolution", "LayerNorm", "Scale", "Convolution", "ReLU", "Convolution", "Scale", "Eltwise"],
    ),
    "instance norm": ([("InstanceNormalization", "x g b", "y")], LAST, ["GroupNorm", "Scale"]),
    "group norm": (
        [("Reshape", "x s", "a"), ("InstanceNormalization", "a o z", "c"), ("Reshape", "c t", "d"), ("Mul", "d g", "e"), ("Add", "e b", "y")],
        {"s": ints(0, 3, -1), "t": ints(0, 6, 8, 8), "o": np.ones(3, "f4"), "z": np.zeros(3, "f4"), "g": weights(6, 1, 1), "b": weights(6, 1, 1)}, ["GroupNorm", "Scale"],
    ),
    "local response": (
        [
            ("Mul", "x x", "a"), ("Reshape", "a s", "b"), ("Pad", "b p", "c"), ("AveragePool", "c", "d", {"kernel_shape": [3, 1, 1], "strides": [1, 1, 1]}), ("Squeeze", "d one", "e"),
            ("Reshape", "e t", "f"), ("Mul", "f alpha", "g"), ("Add", "g k", "h"), ("Pow", "h beta", "i"), ("Div", "x i", "y"),
        ],
        {"s": ints(-1, 1, 6, 8, 8), "p": ints(0, 0, 1, 0, 0, 0, 0, 1, 0, 0), "one": ints(1), "t": ints(-1, 6, 8, 8), "alpha": np.float32(0.2), "k": np.float32(2), "beta": np.float32(0.75)},
        ["LRN"],
    ),
    "unit length": ([("ReduceL2", "x", "a", {"axes": [1], "keepdims": 1}), ("Clip", "a e", "b"), ("Shape", "x", "s"), ("Expand", "b s", "c"), ("Div", "x c", "y")], {"e": np.float32(1e-12)}, ["Normalize"]),
    "unit length of vectors": (
        [("GlobalAveragePool", "x", "v"), ("Flatten", "v", "w"), ("ReduceL2", "w", "a", {"axes": [1], "keepdims": 1}), ("Clip", "a e", "b"), ("Div", "w b", "y")],
        {"e": np.float32(1e-12)}, ["Pooling", "Flatten", "Normalize"],
    ),
    "divided by the sum": ([("GlobalMaxPool", "x", "v"), ("Flatten", "v", "w"), ("ReduceSum", "w i", "a"), ("Div", "w a", "y")], {"i": ints(1)}, ["Pooling", "Flatten", "Reduction", "Reshape", "Power", "Reshape", "Scale"]),
    "shuffle": ([("Reshape", "x s", "a"), ("Transpose", "a", "b", {"perm": [0, 2, 1, 3, 4]}), ("Reshape", "b t", "y")], {"s": ints(-1, 2, 3, 8, 8), "t": ints(-1, 6, 8, 8)}, ["ShuffleChannel"]),
    "focus": (
        [("Slice", "x a e i s", "p"), ("Slice", "x b e i s", "q"), ("Concat", "p q", "y", {"axis": 1})],
        {"a": ints(0, 0), "b": ints(1, 0), "e": ints(100, 100), "i": ints(2, 3), "s": ints(2, 2)}, ["Pooling", "Slice", "Silence", "Pooling", "Concat"],
    ),
    "flip": ([("Slice", "x a e i s", "y")], {"a": ints(-1), "e": ints(-(2**62)), "i": ints(3), "s": ints(-1)}, ["Flip"]),
    "channels reversed": ([("Slice", "x a e i s", "y")], {"a": ints(-1), "e": ints(-(2**62)), "i": ints(1), "s": ints(-1)}, ["Slice", "Concat"]),
    "channels gathered": ([("Gather", "x i", "y", {"axis": 1})], {"i": ints(2, 1, 0, 5)}, ["Slice", "Silence", "Concat"]),
    "every second channel": ([("Slice", "x a e i s", "y")], {"a": ints(1), "e": ints(6), "i": ints(1), "s": ints(2)}, ["Slice", "Silence", "Concat"]),
    "reflected": ([("Pad", "x p", "y", {"mode": "reflect"})], {"p": ints(0, 0, 1, 2, 0, 0, 0, 3)}, ["Pad"]),
    "edges repeated": ([("Pad", "x p", "y", {"mode": "edge"})], {"p": ints(0, 0, 1, 9, 0, 0, 0, 3)}, ["Pad"]),
    "padded by a value": ([("Pad", "x p v", "y")], {"p": ints(0, 0, 1, 2, 0, 0, 0, 3), "v": np.float32(0.5)}, ["Pad"]),
    "padded and cropped": ([("Pad", "x p v", "y")], {"p": ints(0, 0, 1, -2, 0, 0, 0, 3), "v": np.float32(0)}, ["Pad"]),
    "padded by zeros alone": ([("Pad", "x p", "a"), ("Relu", "a", "y")], {"p": ints(0, 0, 1, 2, 0, 0, 0, 3)}, ["Pad", "ReLU"]),
    "padded output": ([("Relu", "x", "a"), ("Pad", "a p", "y")], {"p": ints(0, 0, 1, 2, 0, 0, 0, 3)}, ["ReLU", "Pad"]),
    "channels padded": ([("Pad", "x p", "y")], {"p": ints(0, 2, 0, 0, 0, 1, 0, 0)}, ["Constant", "Constant", "Concat"]),
    "maximum over padding": ([("Pad", "x p", "a"), ("MaxPool", "a", "y", {"kernel_shape": [3, 3]})], {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)}, ["Pad", "Pooling"]),
    "concat with a constant": ([("Concat", "x c", "y", {"axis": 1})], {"c": weights(1, 2, 8, 8)}, ["Constant", "Concat"]),
    "matrices": ([("Reshape", "x s", "a"), ("Transpose", "a", "b", {"perm": [0, 2, 1]}), ("MatMul", "a b", "y")], {"s": ints(0, 6, 64)}, ["Reshape", "Permute", "MatMul"]),
    "a constant matrix": ([("MatMul", "w x", "y")], {"w": weights(3, 8)}, ["Constant", "MatMul"]),
    "where": ([("Greater", "x t", "c"), ("Mul", "x k", "a"), ("Where", "c x a", "y")], {"t": np.float32(0.2), "k": np.float32(0.1)}, ["Threshold", "Power", "Eltwise", "Power", "Eltwise", "Eltwise"]),
    "where with values": ([("Less", "x t", "c"), ("Where", "c k x", "y")], {"t": np.float32(0.2), "k": np.float32(-1)}, ["Power", "Threshold", "Power", "Power", "Eltwise", "Eltwise"]),
    "logic": (
        [("Greater", "x t", "a"), ("LessOrEqual", "x k", "b"), ("And", "a b", "c"), ("Equal", "x x", "d"), ("Xor", "c d", "e"), ("Not", "e", "f"), ("Or", "f a", "g"), ("Where", "g x k", "y")],
        {"t": np.float32(-0.2), "k": np.float32(0.4)}, [],
    ),
    "sign": ([("Sign", "x", "a"), ("Mul", "a x", "y")], {}, ["Power", "Threshold", "Threshold", "Eltwise", "Eltwise"]),
    "mean of rows": ([("ReduceMean", "x", "y", {"axes": [2], "keepdims": 0})], {}, []),
    "minimum of columns": ([("ReduceMin", "x", "y", {"axes": [3], "keepdims": 1})], {}, []),
    "maximum over two axes": ([("ReduceMax", "x", "y", {"axes": [1, 2], "keepdims": 0})], {}, []),
    "repeated": ([("Tile", "x r", "y")], {"r": ints(1, 2, 1, 3)}, ["Tile", "Tile"]),
    "space to depth": ([("SpaceToDepth", "x", "y", {"blocksize": 2})], {}, ["Reshape", "Permute", "Reshape"]),
    "transposed, with output padding": (
        [("ConvTranspose", "x w", "y", {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]})], {"w": weights(6, 4, 3, 3)}, ["Deconvolution"],
    ),
    "dropout": ([("Dropout", "x r", "a"), ("Relu", "a", "y")], {"r": np.float32(0.3)}, ["Dropout", "ReLU"]),
    "in training mode": (
        [("BatchNormalization", "x g b m v", "a p q", {"training_mode": 1}), ("Dropout", "a r t", "y")],
        {**LAST, "m": weights(6), "v": np.ones(6, "f4"), "r": np.float32(0.3), "t": np.array(True)}, ["BatchNorm", "Scale", "Dropout"],
    ),
    "batch norm with factors 1": ([("BatchNormalization", "x g b m v", "y")], {"g": np.ones(6, "f4"), "b": np.zeros(6, "f4"), "m": weights(6), "v": np.ones(6, "f4")}, ["BatchNorm", "Scale"]),
    "a reader of nothing": ([("Erf", "x", "unread"), ("Relu", "x", "y")], {}, ["ReLU"]),
    **{f"resize, {mode}, {how}": (*resize(mode, how), ["Resize"]) for mode in ("nearest", "linear", "cubic") for how in ("half_pixel", "asymmetric", "align_corners")},
    **{f"nearest, {word}": (*resize("nearest", "half_pixel", nearest_mode=word), ["Resize"]) for word in ("round_prefer_ceil", "floor", "ceil")},
    "cubic without the outside": (*resize("cubic", "half_pixel", exclude_outside=1, cubic_coeff_a=-0.5), ["Resize"]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_pattern_is_the_same_here_and_back(name: str, tmp_path: Path) -> None:
    nodes, constants, layers = CASES[name]
    path = model(tmp_path / "m.onnx", *nodes, constants=constants)
    imported = from_onnx(path)
    assert imported.difference is not None and imported.difference.relative < 2e-6
    if layers:
        assert [layer.type for layer in imported.message.layer[1:]] == layers
    net = Net(Definition(imported.message), imported.weights if imported.weights.layer else None, pb.TEST)
    _, difference = export(net)
    assert difference is not None and difference.relative < 2e-6
    if name not in ("in training mode", "concat with a constant"):  # their models are for one image, or train
        assert same_for_three_images(path, imported) < 2e-6


@pytest.mark.parametrize("size", [(3, 5), (12, 20), (1, 1)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_to_a_size_is_the_same_here(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    nodes, constants = to_size(*size, mode=mode)
    path = model(tmp_path / "m.onnx", *nodes, constants=constants, shape=(2, 6, 8, 8))
    imported = from_onnx(path)
    assert imported.difference is not None and imported.difference.relative < 2e-6


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_smaller_image_is_smoothed_as_in_onnxruntime(mode: str, tmp_path: Path) -> None:
    nodes, constants = to_size(3, 5, mode=mode, how="half_pixel", antialias=1)
    path = model(tmp_path / "m.onnx", *nodes, constants=constants, shape=(2, 6, 8, 8), opset=18)
    imported = from_onnx(path)
    assert imported.difference is not None and imported.difference.relative < 2e-6


def test_weights_get_fillers_so_that_training_can_start_without_them(tmp_path: Path) -> None:
    """Without weights, an imported net is not zero; sums over channels, which are not trained, have their ones."""
    nodes = [
        ("Conv", "x w", "a"),
        ("ReduceSum", "a i", "b", {"keepdims": 1}),
        ("Mul", "a b", "c"),
        ("Flatten", "c", "d"),
        ("MatMul", "d v", "y"),
    ]
    constants = {"w": weights(4, 6, 3, 3), "i": ints(1), "v": weights(144, 5)}
    imported = from_onnx(model(tmp_path / "m.onnx", *nodes, constants=constants))
    net = Net(Definition(imported.message), None, pb.TEST, seed=1)
    blobs = [layer.blobs[0].data for layer in net.layers if layer.HAS_WEIGHTS]
    assert [bool((blob == 1).all()) for blob in blobs] == [False, True, False]
    assert all(0.5 < blob.std() * np.sqrt(blob[0].size / 2) < 2 for blob in (blobs[0], blobs[2]))


@pytest.mark.parametrize(
    "node, name",
    [
        (("Conv", "x layer1.0.conv1.weight", "y"), "layer1.0.conv1"),
        (("Conv", "x onnx::Conv_7", "y", {"name": "/layer1/layer1.0/conv1/Conv"}), "layer1.0.conv1"),
        (("Relu", "x", "y", {"name": "/layer1/layer1.0/relu_1/Relu"}), "layer1.0.relu_1"),
        (("Relu", "x", "y", {"name": "/layer1/layer1.0/Relu"}), "layer1.0.Relu"),
        (("Relu", "x", "y", {"name": "node_relu"}), "node_relu"),
    ],
)
def test_layer_has_the_name_of_its_module(node: Any, name: str, tmp_path: Path) -> None:
    constants = {name: weights(4, 6, 3, 3) for name in ("layer1.0.conv1.weight", "onnx::Conv_7")}
    imported = from_onnx(model(tmp_path / "m.onnx", node, constants=constants))
    assert imported.message.layer[1].name == name


def test_gelu_of_pytorch_becomes_one_operator_again(tmp_path: Path) -> None:
    nodes, constants, _ = CASES["gelu"]
    imported = from_onnx(model(tmp_path / "m.onnx", *nodes, constants=constants))
    back, _ = export(Net(Definition(imported.message), None, pb.TEST))
    assert [node.op_type for node in back.graph.node] == ["Gelu"]
