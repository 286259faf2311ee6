"""An ONNX model as a prototxt: what onnxruntime computes, sslnet computes; what has no layer here is told by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import helper

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.cli import main
from sslnet.compress.compaction.compare import blob_difference
from sslnet.errors import DataError, DefinitionError, ErrorList
from sslnet.exchange.export import export, to_onnx
from sslnet.exchange.importing import from_onnx
from sslnet.exchange.runtime import run_in_onnxruntime
from sslnet.layers import LAYERS
from sslnet.layers.onnx import OnnxOperator
from sslnet.net.net import Net
from tests.support.onnx_models import ints, model, same_for_three_images, weights

POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "conv": ([("Conv", "x w b", "y", {"pads": [1, 2, 1, 2], "strides": [2, 1]})], {"w": weights(4, 6, 3, 3), "b": weights(4)}),
    "conv groups dilated": ([("Conv", "x w", "y", {"group": 2, "dilations": [2, 2]})], {"w": weights(4, 3, 3, 3)}),
    "conv padded at one side": (
        [("Conv", "x w", "a", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}), ("Conv", "a v", "y", {"group": 4, "pads": [2, 0, 1, 1]})],
        {"w": weights(4, 6, 3, 3), "v": weights(8, 1, 3, 3)},
    ),
    "conv padded at one side, dilated": ([("Conv", "x w", "y", {"pads": [0, 3, 2, 1], "dilations": [2, 2]})], {"w": weights(4, 6, 3, 3)}),
    "conv behind padding of one side": (
        [("Pad", "x p", "a"), ("Conv", "a w b", "y", {"strides": [2, 2]})],
        {"p": ints(0, 0, 0, 0, 0, 0, 1, 1), "w": weights(4, 6, 3, 3), "b": weights(4)},
    ),
    "conv same of strides": (
        [("Conv", "x w", "a", {"auto_pad": "SAME_UPPER", "strides": [2, 3]}), ("Conv", "a v", "y", {"auto_pad": "SAME_UPPER"})],
        {"w": weights(4, 6, 3, 4), "v": weights(8, 4, 2, 2)},
    ),
    "conv same at the beginning": ([("Conv", "x w", "y", {"auto_pad": "SAME_LOWER", "strides": [2, 2]})], {"w": weights(4, 6, 3, 3)}),
    "conv same": ([("Conv", "x w", "y", {"auto_pad": "SAME_UPPER"})], {"w": weights(4, 6, 3, 3)}),
    "padded conv": (
        [("Pad", "x p", "a"), ("Conv", "a w", "y", {"pads": [1, 1, 1, 1]})],
        {"p": ints(0, 0, 1, 0, 0, 0, 1, 0), "w": weights(4, 6, 3, 3)},
    ),
    "deconv": ([("ConvTranspose", "x w", "y", {"strides": [2, 2], "group": 2})], {"w": weights(6, 2, 3, 3)}),
    "deconv with more pixels": (
        [("ConvTranspose", "x w", "y", {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]})],
        {"w": weights(6, 2, 3, 3)},
    ),
    "deconv same": ([("ConvTranspose", "x w", "y", {"strides": [2, 3], "auto_pad": "SAME_UPPER"})], {"w": weights(6, 2, 3, 4)}),
    "deconv cut at one side": ([("ConvTranspose", "x w", "y", {"strides": [2, 2], "pads": [0, 2, 1, 0]})], {"w": weights(6, 2, 3, 3)}),
    "deconv of a given size": (
        [("ConvTranspose", "x w", "y", {"strides": [2, 2], "output_shape": [16, 16]})],
        {"w": weights(6, 2, 3, 3)},
    ),
    "batch norm": (
        [("BatchNormalization", "x s b m v", "y", {"epsilon": 0.01})],
        {"s": weights(6), "b": weights(6), "m": weights(6), "v": np.abs(weights(6)) + 1},
    ),
    "gemm": ([("Flatten", "x", "a"), ("Gemm", "a w b", "y", {"transB": 1, "alpha": 0.5})], {"w": weights(5, 384), "b": weights(5)}),
    "gemm of the other order": ([("Flatten", "x", "a"), ("Gemm", "a w", "y")], {"w": weights(384, 5)}),
    "matmul and bias": (
        [("Reshape", "x s", "a"), ("MatMul", "a w", "c"), ("Add", "c b", "y")],
        {"s": ints(0, 6, 64), "w": weights(64, 5), "b": weights(5)},
    ),
    "max pool": ([("MaxPool", "x", "y", POOL)], {}),
    "max pool ceil": ([("MaxPool", "x", "y", {**POOL, "ceil_mode": 1})], {}),
    "max pool padded behind": ([("MaxPool", "x", "y", {**POOL, "pads": [0, 0, 1, 1]})], {}),
    "max pool same": ([("MaxPool", "x", "y", {**POOL, "auto_pad": "SAME_UPPER"})], {}),
    "max pool same of stride one": ([("MaxPool", "x", "y", {"kernel_shape": [2, 4], "auto_pad": "SAME_UPPER"})], {}),
    "mean pool same": ([("AveragePool", "x", "y", {**POOL, "auto_pad": "SAME_UPPER"})], {}),
    "mean pool same of stride one": ([("AveragePool", "x", "y", {"kernel_shape": [3, 4], "auto_pad": "SAME_UPPER"})], {}),
    "mean pool": ([("AveragePool", "x", "y", {**POOL, "pads": [1, 1, 1, 1]})], {}),
    "mean pool with padding": ([("AveragePool", "x", "y", {**POOL, "pads": [1, 1, 1, 1], "count_include_pad": 1})], {}),
    "mean pool ceil with padding": ([("AveragePool", "x", "y", {**POOL, "pads": [1, 1, 1, 1], "count_include_pad": 1, "ceil_mode": 1})], {}),
    "mean pool ceil": ([("AveragePool", "x", "y", {**POOL, "ceil_mode": 1})], {}),
    "mean pool of zeros": ([("Pad", "x p", "a"), ("AveragePool", "a", "y", POOL)], {"p": ints(0, 0, 0, 0, 0, 0, 1, 1)}),
    "global pools": ([("GlobalMaxPool", "x", "a"), ("GlobalAveragePool", "x", "b"), ("Sub", "a b", "y")], {}),
    "mean over pixels": ([("ReduceMean", "x", "y", {"axes": [2, 3], "keepdims": 0})], {}),
    "mean over all": ([("ReduceMean", "x", "y", {"axes": [1, 2, 3], "keepdims": 1})], {}),
    "sum over pixels": ([("ReduceSum", "x a", "y", {"keepdims": 0})], {"a": ints(2, 3)}),
    "max over pixels": ([("ReduceMax", "x", "y", {"axes": [-2, -1]})], {}),
    "over channels": (
        [("ReduceMean", "x", "a", {"axes": [1]}), ("ReduceMax", "x", "b", {"axes": [1]}), ("Concat", "a b", "c", {"axis": 1}), ("Conv", "c w", "d"), ("Mul", "x d", "y")],
        {"w": weights(1, 2, 1, 1)},
    ),
    "lengths": (
        [("ReduceL2", "x", "a", {"axes": [1]}), ("Clip", "a low", "b"), ("Shape", "x", "s"), ("Expand", "b s", "c"), ("Div", "x c", "y")],
        {"low": np.float32(1e-3)},
    ),
    "other sums": ([("ReduceL1", "x", "a", {"axes": [2, 3]}), ("ReduceSumSquare", "x", "b", {"axes": [2, 3]}), ("Add", "a b", "y")], {}),
    "lrn": ([("LRN", "x", "y", {"size": 3, "alpha": 0.5, "bias": 2.0})], {}),
    "relus": (
        [("Relu", "x", "a"), ("LeakyRelu", "x", "b", {"alpha": 0.2}), ("PRelu", "x s", "c"), ("Sum", "a b c", "y")],
        {"s": weights(6, 1, 1)},
    ),
    "relu6": ([("Clip", "x low high", "y")], {"low": np.float32(0), "high": np.float32(6)}),
    "clip below": ([("Clip", "x low", "y")], {"low": np.float32(-0.5)}),
    "curves": (
        [("Sigmoid", "x", "a"), ("Tanh", "a", "b"), ("Elu", "b", "c"), ("Softplus", "c", "d"), ("Exp", "d", "e"), ("Log", "e", "y")],
        {},
    ),
    "hard ones": ([("HardSwish", "x", "a"), ("HardSigmoid", "a", "b"), ("Neg", "b", "c"), ("Abs", "c", "y")], {}),
    "more curves": ([("Selu", "x", "a"), ("Celu", "a", "b", {"alpha": 0.5}), ("Celu", "b", "c"), ("LogSoftmax", "c", "y", {"axis": 1})], {}),
    "bounds": ([("Max", "x low", "a"), ("Min", "a high", "b"), ("Min", "b x", "y")], {"low": np.float32(-0.5), "high": np.float32(0.7)}),
    "powers": (
        [("Mul", "x x", "a"), ("Add", "a one", "b"), ("Sqrt", "b", "c"), ("Reciprocal", "c", "d"), ("Pow", "d two", "y")],
        {"one": np.float32(1), "two": np.float32(2)},
    ),
    "constants": (
        [("Sub", "k x", "a"), ("Div", "a s", "b"), ("Mul", "c b", "d"), ("Sub", "d e", "y")],
        {"k": np.float32(2), "s": weights(6, 1, 1) + 3, "c": weights(6, 1, 1), "e": weights(8, 8)},
    ),
    "squeeze and excitation": (
        [("GlobalAveragePool", "x", "a"), ("Conv", "a w", "b"), ("Sigmoid", "b", "c"), ("Mul", "x c", "d"), ("Add", "d x", "y")],
        {"w": weights(6, 6, 1, 1)},
    ),
    "less than the whole": ([("GlobalAveragePool", "x", "a"), ("Sub", "a x", "b"), ("Sub", "b a", "y")], {}),
    "constants between": ([("Mul", "x k", "a"), ("Add", "a l", "y")], {"k": weights(6, 1, 8), "l": weights(1, 8, 8)}),
    "quotient": ([("Exp", "x", "a"), ("Div", "x a", "y")], {}),
    "branches": (
        [("Split", "x s", "a b", {"axis": 1}), ("Max", "a b", "c"), ("Concat", "a c", "y", {"axis": -3})],
        {"s": ints(3, 3)},
    ),
    "slice": ([("Slice", "x from to axes", "y")], {"from": ints(1, 0), "to": ints(-1, 5), "axes": ints(1, 3)}),
    "one channel": ([("Gather", "x i", "a", {"axis": 1}), ("Gather", "x j", "b", {"axis": 1}), ("Unsqueeze", "a u", "c"), ("Mul", "b c", "y")], {"i": np.int64(1), "j": ints(2, 3, 4), "u": ints(1)}),
    "pixels of channels": ([("DepthToSpace", "x", "a", {"blocksize": 1}), ("Concat", "a x", "b", {"axis": 1}), ("DepthToSpace", "b", "c", {"blocksize": 2, "mode": "CRD"}), ("DepthToSpace", "b", "d", {"blocksize": 2}), ("Add", "c d", "y")], {}),
    "channels last": (
        [
            ("Transpose", "x", "a", {"perm": [0, 2, 3, 1]}), ("Add", "a b", "c"), ("Transpose", "c", "d", {"perm": [0, 3, 1, 2]}),
            ("Conv", "d w", "e", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}), ("Transpose", "e", "f", {"perm": [0, 2, 3, 1]}),
            ("Reshape", "f s", "g"), ("MatMul", "g v", "h"), ("Add", "h z", "i"), ("Softmax", "i", "y"),
        ],
        {"b": weights(6), "w": weights(4, 6, 3, 3), "s": ints(-1, 64), "v": weights(64, 5), "z": weights(5)},
    ),
    "shapes": (
        [("Shape", "x", "s"), ("Gather", "s zero", "n"), ("Unsqueeze", "n axes", "m"), ("Concat", "m rest", "t", {"axis": 0}), ("Reshape", "x t", "y")],
        {"zero": np.int64(0), "axes": ints(0), "rest": ints(-1)},
    ),
    "transpose": ([("Transpose", "x", "a", {"perm": [0, 2, 3, 1]}), ("Softmax", "a", "y")], {}),
    "between the pixels": ([("Resize", "x none f", "y", {"mode": "linear"})], {"none": np.zeros(0, "f4"), "f": np.array([1, 1, 3, 2], "f4")}),
    "nearest": ([("Resize", "x none f", "y", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})], {"none": np.zeros(0, "f4"), "f": np.array([1, 1, 2, 2], "f4")}),
    "nothing": ([("Identity", "x", "a"), ("Dropout", "a", "b"), ("Cast", "b", "c", {"to": 1}), ("Relu", "c", "y")], {}),
    "squeeze": ([("GlobalMaxPool", "x", "a"), ("Squeeze", "a s", "b"), ("Unsqueeze", "b u", "c"), ("ArgMax", "c", "d", {"axis": 1}), ("Cast", "d", "y", {"to": 1})], {"s": ints(2, 3), "u": ints(2)}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_model_is_the_same_here(name: str, tmp_path: Path) -> None:
    nodes, constants = CASES[name]
    path = model(tmp_path / "m.onnx", *nodes, constants=constants)
    imported = from_onnx(path)
    assert imported.difference is not None
    assert imported.difference.relative < 1e-5
    assert same_for_three_images(path, imported) < 1e-5


def test_dense_chain_becomes_as_few_layers_as_it_has(tmp_path: Path) -> None:
    nodes, constants = CASES["matmul and bias"]
    layers = from_onnx(model(tmp_path / "m.onnx", *nodes, constants=constants)).message.layer
    assert [layer.type for layer in layers] == ["Input", "Reshape", "InnerProduct"]
    assert layers[2].inner_product_param.bias_term


def test_channels_last_model_keeps_its_channels_apart(tmp_path: Path) -> None:
    """Transposes around a bias disappear; those for a fully connected layer go into the order of its weights."""
    nodes, constants = CASES["channels last"]
    layers = from_onnx(model(tmp_path / "m.onnx", *nodes, constants=constants)).message.layer
    assert [layer.type for layer in layers] == ["Input", "Bias", "Convolution", "InnerProduct", "Softmax"]


def test_convolution_padded_at_one_side_has_no_more_weights(tmp_path: Path) -> None:
    nodes, constants = CASES["conv behind padding of one side"]
    path = model(tmp_path / "m.onnx", *nodes, constants=constants)
    imported = from_onnx(path)
    layer, weights = imported.message.layer[1], imported.weights.layer[0].blobs[0]
    assert list(layer.convolution_param.kernel_size) == [4, 4] and list(weights.shape.dim) == [4, 54]
    back, difference = export(Net(prototxt.Definition(imported.message), imported.weights))
    assert difference is not None and difference.relative < 1e-5
    attributes = {a.name: list(a.ints) for a in back.graph.node[0].attribute}
    assert attributes["kernel_shape"] == [3, 3] and attributes["pads"] == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["conv same", "conv same of strides", "max pool same", "mean pool same"])
def test_padding_that_follows_from_the_size_becomes_pad_type_same(name: str, tmp_path: Path) -> None:
    nodes, constants = CASES[name]
    layers = from_onnx(model(tmp_path / "m.onnx", *nodes, constants=constants)).message.layer[1:]
    assert len(layers) == len(nodes)
    for layer in layers:
        param = layer.convolution_param if layer.type == "Convolution" else layer.pooling_param
        assert param.pad_type == 1
        assert not any(descriptor.name.startswith("kept") for descriptor, _ in param.ListFields())


def test_branch_of_an_if_that_is_known_is_taken(tmp_path: Path) -> None:
    """As PyTorch writes operators whose form depends on the shape of what they read."""
    info = helper.make_empty_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph([helper.make_node(op, ["x"], [name])], name, [], [info(name)])
        for name, op in (("then", "Relu"), ("else", "Tanh"))
    }
    nodes = [
        ("Shape", "x", "s"),
        ("Size", "s", "n"),
        ("Equal", "n four", "is"),
        ("If", "is", "a", branches),
        ("Neg", "a", "y"),
    ]
    imported = from_onnx(model(tmp_path / "m.onnx", *nodes, constants={"four": np.int64(4)}))
    assert [layer.type for layer in imported.message.layer] == ["Input", "ReLU", "Power"]


@pytest.mark.parametrize(
    "node, message",
    [
        (("Einsum", "x", "y", {"equation": "abcd->abcd"}), "there is no layer for the operator Einsum"),
        (
            ("Conv", "x w", "y", {"pads": [1, 0, 0, 0], "dilations": [2, 2]}),
            r"padding that differs by \[0, 0\] and \[1, 0\] pixels",
        ),
        (("ReduceMax", "x", "y", {"axes": [0, 2]}), "ReduceMax: over the axis of the images"),
        (("Conv", "x x", "y"), '"x" must be known before the net runs'),
        (("Pad", "x q", "y"), "Pad: padding of the axis of the images"),
    ],
)
def test_what_has_no_layer_is_one_error(node: Any, message: str | None, tmp_path: Path) -> None:
    path = model(
        tmp_path / "m.onnx",
        node,
        constants={"w": weights(4, 6, 3, 3), "q": ints(1, 0, 0, 0, 0, 0, 0, 0)},
    )
    with pytest.raises((DefinitionError, DataError), match=message):
        from_onnx(path)


V = weights(6, 1, 1) / 4
ELEMENTWISE = [
    "Softplus", "Sin", "Cos", "Tan", "Erf", "Elu", "Selu", "HardSigmoid", "LeakyRelu", "Celu", "Softsign", "Atan", "Asin",
    "Acos", "Sinh", "Cosh", "Asinh", "Atanh", "Softmax", "LogSoftmax", "HardSwish", "ThresholdedRelu",
]  # fmt: skip
KNOWN: dict[str, tuple[list[Any], dict[str, Any]]] = {
    **{op: ([(op, "v", "a"), ("Mul", "x a", "y")], {"v": V}) for op in ELEMENTWISE},
    "Acosh": ([("Acosh", "v", "a"), ("Mul", "x a", "y")], {"v": np.abs(V) + 1}),
    "PRelu": ([("PRelu", "v s", "a"), ("Mul", "x a", "y")], {"v": V, "s": np.full((1, 1, 1), 0.3, "f4")}),
    "added": ([("Cos", "v", "a"), ("Add", "a x", "y")], {"v": V}),
    "spectral norm": (
        [
            ("Reshape", "w s", "m"),
            ("MatMul", "m v", "mv"),
            ("MatMul", "u mv", "sigma"),
            ("Div", "w sigma", "n"),
            ("Conv", "x n", "y"),
        ],
        {"w": weights(4, 6, 3, 3), "s": ints(4, 54), "v": weights(54), "u": weights(4)},
    ),
    "Gemm": (
        [("Gemm", "a b c", "m", {"transA": 1, "alpha": 0.5}), ("Reshape", "m s", "w"), ("Conv", "x w", "y")],
        {"a": weights(3, 4), "b": weights(3, 6), "c": weights(6), "s": ints(4, 6, 1, 1)},
    ),
    "GatherND": ([("GatherND", "w i", "a"), ("Mul", "x a", "y")], {"w": weights(9, 6, 1, 1), "i": ints(4)}),
    "GatherElements": (
        [("GatherElements", "w i", "a", {"axis": 0}), ("Reshape", "a s", "b"), ("Mul", "x b", "y")],
        {"w": weights(99, 4), "i": ints(98, -1, 3, 1, 0, 7).reshape(2, 3), "s": ints(6, 1, 1)},
    ),
    "ScatterND": (
        [("ScatterND", "w i u", "a"), ("Mul", "x a", "y")],
        {"w": weights(6, 1, 1), "i": ints(4, 1).reshape(2, 1), "u": weights(2, 1, 1)},
    ),
    "ScatterElements": (
        [("ScatterElements", "w i u", "a"), ("Mul", "x a", "y")],
        {"w": weights(6, 1, 1), "i": ints(4, 1).reshape(2, 1, 1), "u": weights(2, 1, 1)},
    ),
    "OneHot": (
        [("OneHot", "i d v", "a"), ("Reshape", "a s", "b"), ("Add", "x b", "y")],
        {"i": ints(2), "d": np.int64(6), "v": np.array([0.5, 2], "f4"), "s": ints(6, 1, 1)},
    ),
    "BitShift": (
        [("BitShift", "a b", "c", {"direction": "LEFT"}), ("Cast", "c", "d", {"to": 1}), ("Mul", "x d", "y")],
        {"a": np.uint8(3), "b": np.uint8(2)},
    ),
}
"""What is computed of constants alone."""


@pytest.mark.parametrize("name", list(KNOWN))
def test_constants_are_computed_ahead(name: str, tmp_path: Path) -> None:
    nodes, constants = KNOWN[name]
    imported = from_onnx(model(tmp_path / "m.onnx", *nodes, constants=constants))
    assert imported.difference is not None and imported.difference.relative < 1e-5
    assert len(imported.message.layer) == 2


def test_slice_to_the_end_of_an_axis_as_an_attribute(tmp_path: Path) -> None:
    """As PyTorch writes it up to operator set 9: the end is the largest integer that there is."""
    attributes = {"axes": [1, 2], "starts": [2, -(2**63)], "ends": [2**63 - 1, -1]}
    imported = from_onnx(model(tmp_path / "m.onnx", ("Slice", "x", "y", attributes), opset=9))
    assert imported.difference is not None and imported.difference.relative == 0
    assert Net(prototxt.Definition(imported.message)).blobs["y"].shape == (1, 4, 7, 8)


def test_clip_to_infinity_as_an_attribute(tmp_path: Path) -> None:
    attributes = {"min": 0.0, "max": float("inf")}
    imported = from_onnx(model(tmp_path / "m.onnx", ("Clip", "x", "y", attributes), opset=9))
    assert [layer.type for layer in imported.message.layer] == ["Input", "ReLU"]


def test_clip_to_what_is_no_number_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="Clip: max is nan"):
        from_onnx(model(tmp_path / "m.onnx", ("Clip", "x", "y", {"min": 0.0, "max": float("nan")}), opset=9))
    path = model(tmp_path / "m.onnx", ("Clip", "x low", "y"), constants={"low": np.float32("nan")})
    with pytest.raises(DefinitionError, match="Clip: a bound that is not a number"):
        from_onnx(path)


def test_input_in_the_middle_may_be_left_out(tmp_path: Path) -> None:
    node = helper.make_node(
        "Resize", ["x", "", "f"], ["y"], coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    made = onnx.load(str(model(tmp_path / "m.onnx", ("Relu", "x", "y"), constants={"f": np.array([1, 1, 2, 2], "f4")})))
    made.graph.node[0].CopyFrom(node)
    onnx.save(made, str(tmp_path / "m.onnx"))
    imported = from_onnx(tmp_path / "m.onnx")
    assert imported.difference is not None and imported.difference.relative < 1e-5


def test_error_that_follows_from_a_constant_is_not_told(tmp_path: Path) -> None:
    path = model(
        tmp_path / "m.onnx",
        ("Hardmax", "v", "a"), ("Cos", "a", "b"), ("Exp", "b", "c"), ("Mul", "x c", "e"), ("Erf", "e", "y"),
        constants={"v": weights(6, 1, 1)},
    )  # fmt: skip
    with pytest.raises(ErrorList) as caught:
        from_onnx(path)
    assert [error.message.split()[-1] for error in caught.value.errors] == ["Hardmax", "Erf"]


def test_every_fault_of_a_model_is_told_once(tmp_path: Path) -> None:
    path = model(tmp_path / "m.onnx", ("Hardmax", "x", "a"), ("Sin", "a", "b"), ("Relu", "b", "c"), ("Erf", "c", "y"))
    with pytest.raises(ErrorList) as caught:
        from_onnx(path)
    assert [error.message.split()[-1] for error in caught.value.errors] == ["Hardmax", "Sin", "Erf"]


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08"])
def test_file_that_is_no_model_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(DataError, match="not a model that ONNX can read"):
        from_onnx(tmp_path / "m.onnx")


def test_input_without_a_size_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match='the input "x" has no fixed size'):
        from_onnx(model(tmp_path / "m.onnx", ("Relu", "x", "y"), shape=("N", 3, "H", "W")))


def test_command_writes_a_net_that_sslnet_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes, constants = CASES["gemm"]
    path = model(tmp_path / "m.onnx", *nodes, constants=constants)
    assert main(["import", str(path), "--batch", "3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["difference"] < 1e-5
    assert Net(record["model"], record["weights"]).blobs["y"].shape == (3, 5)
    assert main(["import", str(path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["import", str(path), "--output", str(tmp_path / "new" / "net")]) == 0
    assert "largest difference from the model" in capsys.readouterr().out


def test_model_goes_all_the_way_and_keeps_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Import, prune, compact, export: what comes out is what the pruned net computes, and smaller."""
    nodes = [
        ("Conv", "x w b", "conv", {"pads": [1, 1, 1, 1]}), ("BatchNormalization", "conv s t m v", "norm"),
        ("Clip", "norm low high", "relu6"), ("Conv", "relu6 dw", "deep", {"group": 8, "pads": [0, 0, 1, 1], "strides": [2, 2]}),
        ("HardSwish", "deep", "swish"), ("GlobalAveragePool", "swish", "pool"), ("Flatten", "pool", "flat"), ("Gemm", "flat v2", "y", {"transB": 1}),
    ]  # fmt: skip
    constants = {
        "w": weights(8, 6, 3, 3), "b": weights(8), "s": weights(8) + 2, "t": weights(8), "m": weights(8), "v": weights(8) ** 2 + 1,
        "low": np.float32(0), "high": np.float32(6), "dw": weights(8, 1, 3, 3), "v2": weights(5, 8),
    }  # fmt: skip
    constants["w"][[1, 4]] *= 1e-4
    path = model(tmp_path / "m.onnx", *nodes, constants=constants)
    steps = {"scale": 0.5, "mean_value": [104.0]}
    written = onnx.load(str(path))
    helper.set_model_props(written, {"name": "a net", "preprocessing": json.dumps(steps)})
    onnx.save(written, str(path))
    net, pruned, small = (str(tmp_path / name) for name in ("net", "pruned", "small"))
    definition = ["--model", f"{net}.prototxt"]
    assert main(["import", str(path), "--output", net]) == 0
    assert 'name: "a net"' in Path(f"{net}.prototxt").read_text()
    prune = ["--weights", f"{net}.caffemodel", "--group", "FILTER", "--layers", "Conv_0"]
    assert main(["prune", *definition, *prune, "--sparsity", "0.25", "--output", pruned]) == 0
    assert main(["compact", *definition, "--weights", f"{pruned}.caffemodel", "--output", small]) == 0
    target = str(tmp_path / "small.onnx")
    assert main(["export", "--model", f"{small}.prototxt", "--weights", f"{small}.caffemodel", "--output", target]) == 0
    made = onnx.load(target)
    assert [info.name for info in (*made.graph.input, *made.graph.output)] == ["x", "y"]
    shapes = {constant.name: list(constant.dims) for constant in made.graph.initializer}
    assert shapes["Conv_0.0"] == [6, 6, 3, 3]
    props = {entry.key: entry.value for entry in made.metadata_props}
    assert props["name"] == "a net" and json.loads(props["preprocessing"]) == steps
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 6, 8, 8)).astype(np.float32)}
    whole, less = (run_in_onnxruntime(str(p), inputs, ["y"]) for p in (path, target))
    assert whole is not None and less is not None
    assert blob_difference("y", whole["y"], less["y"]).relative < 1e-2


def test_net_survives_the_way_there_and_back(tmp_path: Path) -> None:
    """Layer for layer: no operator is left where the layer that wrote it stood."""
    net = Net(Path(__file__).parents[2] / "models" / "resnet20" / "deploy.prototxt", seed=0)
    for param in net.learnable:
        param.blob.data[...] = np.abs(np.random.default_rng(0).standard_normal(param.blob.shape)) / np.sqrt(
            1 + param.blob.count / 16
        )
    onnx_model, _ = export(net)
    onnx.save(onnx_model, str(tmp_path / "m.onnx"))
    imported = from_onnx(tmp_path / "m.onnx")
    assert imported.difference is not None and imported.difference.relative < 1e-5
    ours = [layer.TYPE for layer in net.layers if layer.TYPE not in ("Split", "Dropout")]
    assert [layer.type for layer in imported.message.layer] == ours


OPERATORS = [(kind, operator) for kind, layer in LAYERS.items() for operator in layer.ONNX]


@pytest.mark.parametrize(("kind", "operator"), OPERATORS, ids=[operator.name for _, operator in OPERATORS])
def test_operator_that_a_layer_is_becomes_that_layer(kind: str, operator: OnnxOperator, tmp_path: Path) -> None:
    schema = onnx.defs.get_schema(operator.name)
    defaults = {name: helper.get_attribute_value(schema.attributes[name].default_value) for name in operator.fields}
    other = {name: "tanh" if value == b"none" else 1.25 * value for name, value in defaults.items()}
    for attributes in [{}, other] if other else [{}]:
        nodes = [("Abs", "x", "a"), (operator.name, "a", "y", attributes)]
        found = from_onnx(model(tmp_path / "m.onnx", *nodes, opset=max(18, operator.opset)))
        assert [layer.type for layer in found.message.layer] == ["Input", "AbsVal", kind]
        assert found.difference is not None and found.difference.relative < 1e-5


@pytest.mark.parametrize(
    ("layer", "beta"), [('type: "SiLU"', 1), ('type: "Swish"', 1), ('type: "Swish" swish_param { beta: 1.5 }', 1.5)]
)
def test_swish_comes_back_as_one_layer(layer: str, beta: float, tmp_path: Path) -> None:
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
    net = Net(prototxt.parse(f'{text} layer {{ name: "l" bottom: "x" top: "y" {layer} }}', pb.NetParameter))
    onnx.save(to_onnx(net), str(tmp_path / "m.onnx"))
    found = from_onnx(tmp_path / "m.onnx")
    assert [layer.type for layer in found.message.layer] == ["Input", "Swish"]
    assert found.message.layer[1].swish_param.beta == beta


@pytest.mark.parametrize(
    "nodes",
    [
        [("Sigmoid", "x", "s"), ("Mul", "s x", "a"), ("Add", "a s", "y")],
        [("Sigmoid", "x", "s"), ("Tanh", "x", "t"), ("Mul", "s t", "y")],
        [("Mul", "x two", "b"), ("Sigmoid", "b", "s"), ("Mul", "s x", "a"), ("Add", "a b", "y")],
        [("Add", "x two", "b"), ("Sigmoid", "b", "s"), ("Mul", "x s", "y")],
    ],
)
def test_product_with_a_sigmoid_that_is_no_swish_stays_a_product(nodes: list[Any], tmp_path: Path) -> None:
    found = from_onnx(model(tmp_path / "m.onnx", *nodes, constants={"two": np.float32(2)}))
    assert "Swish" not in [layer.type for layer in found.message.layer]
    assert found.difference is not None and found.difference.relative < 1e-5


def test_word_that_a_field_does_not_know_is_told_with_those_it_knows(tmp_path: Path) -> None:
    nodes = [("Gelu", "x", "y", {"approximate": "roughly"})]
    with pytest.raises(DefinitionError, match='approximate is "roughly"') as caught:
        from_onnx(model(tmp_path / "m.onnx", *nodes, opset=20))
    assert caught.value.hint == "it may be none, tanh"
