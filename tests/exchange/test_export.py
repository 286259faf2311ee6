"""A net as an ONNX model gives in onnxruntime what it gives here: every layer type, every model that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.errors import DefinitionError
from sslnet.exchange.export import compare_with_onnxruntime, export, preprocessing, to_onnx
from sslnet.exchange.importing import from_onnx
from sslnet.layers import LAYERS
from sslnet.layers.base import Layer
from sslnet.net.net import Net

MODELS = [
    path
    for path in sorted((Path(__file__).parents[2] / "models").glob("*/deploy.prototxt"))
    if path.parent.name != "mobilenet_ssd"  # it ends in DetectionOutput, for which ONNX has no operator
]
LARGE = {"alexnet", "caffenet", "vgg16"}
"""Marked as slow: hundreds of MiB take seconds."""

NOT_WRITTEN = {
    "Accuracy", "AnnotatedData", "BoxOutput", "DecodeBBox", "DetectionEvaluate", "MultiBoxLoss", "Proposal", "Region", "RegionLoss",
    "YoloDetectionOutput", "Yolov3", "Yolov3DetectionOutput", "ArrayData", "BoxAnnotatorOHEM", "ContrastiveLoss", "Data", "DetectionOutput", "DummyData", "PSROIPooling", "Reorg",
    "SmoothL1Loss", "SmoothL1LossOHEM", "SoftmaxWithLossOHEM", "EuclideanLoss", "Filter", "HDF5Data", "HDF5Output", "HingeLoss",
    "Im2col", "ImageData", "ImageFolderData", "InfogainLoss", "Input", "LSTM", "MemoryData", "MultinomialLogisticLoss", "Python", "RNN",
    "SigmoidCrossEntropyLoss", "SoftmaxWithLoss", "WindowData",
    "CenterLoss", "ChannelScale", "ContinuationIndicator", "Correlation", "CtcLoss", "CTCLoss", "DenseImageData", "FlowWarp",
    "ImageLabelmapData", "ImageSegData", "InnerDistance", "LabelSpecificAdd", "LabelsequenceAccuracy", "Lstm", "LSTMUnit",
    "MarginInnerProduct", "Resample", "SegAccuracy",
}  # fmt: skip
"""Sources, losses, measures, and what no standard operator does."""

CASES = {
    "AbsVal": [""],
    "AutoCrop": [("", [(2, 6, 7, 8), (2, 1, 4, 5)])],
    "Reverse": ["", "reverse_param { axis: 1 axis: -1 }"],
    "Sparsify": ["", "sparsify_param { thre: 0.4 }"],
    "ArgMax": [
        "",
        "argmax_param { top_k: 3 }",
        "argmax_param { axis: 1 }",
        "argmax_param { out_max_val: true top_k: 2 }",
        "argmax_param { axis: 2 top_k: 2 out_max_val: true }",
    ],
    "Axpy": [("", [(2, 6), (2, 6, 7, 8), (2, 6, 7, 8)]), ("", [(2, 6, 1, 1), (2, 6, 7, 8), (2, 6, 7, 8)])],
    "BatchNorm": ["", "batch_norm_param { eps: 0.1 }"],
    "BatchReindex": [("", [(3, 6), (4,)])],
    "Bias": [
        'bias_param { filler { type: "gaussian" } }',
        'bias_param { axis: 2 filler { type: "gaussian" } }',
        'bias_param { axis: 1 num_axes: -1 filler { type: "gaussian" } }',
        ("", [(2, 6, 7, 8), (6,)]),
        ("bias_param { axis: 0 }", [(2, 6, 7, 8), (2, 6)]),
    ],
    "BNLL": [""],
    "Clip": ["clip_param { min: -0.5 max: 0.7 }"],
    "Concat": [("", [(2, 6, 7, 8), (2, 3, 7, 8)]), ("concat_param { axis: 0 }", [(2, 6), (3, 6)])],
    "Constant": ['constant_param { shape { dim: 3 dim: 2 } filler { type: "gaussian" } }', "constant_param { shape { } }"],
    "Convolution": [
        "convolution_param { num_output: 4 kernel_size: 3 }",
        "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2 group: 2 }",
        "convolution_param { num_output: 4 kernel_size: 3 dilation: 2 bias_term: false }",
        ("convolution_param { num_output: 4 kernel_size: 3 pad: 1 }", [(2, 3, 9)]),
        "convolution_param { num_output: 4 kernel_size: 3 kernel_size: 4 stride: 2 pad_type: SAME }",
        ("convolution_param { num_output: 4 kernel_size: 3 stride: 2 }", [(2, 3, 5, 6, 7)]),
    ],
    "ConvolutionDepthwise": [
        "convolution_param { kernel_size: 3 stride: 2 num_output: 6 pad_type: SAME }","convolution_param { kernel_size: 3 pad: 1 num_output: 6 }"],
    "DepthwiseConvolution": ["convolution_param { kernel_size: 3 stride: 2 num_output: 6 }"],
    "Crop": [("crop_param { axis: 2 offset: 1 offset: 2 }", [(2, 6, 7, 8), (2, 6, 4, 5)])],
    "Deconvolution": [
        "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 }",
        "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 output_pad: 1 }",
        "convolution_param { num_output: 6 kernel_size: 4 stride: 2 group: 6 bias_term: false }",
        "convolution_param { num_output: 4 kernel_size: 3 dilation: 2 group: 2 }",
        "convolution_param { num_output: 4 kernel_size: 3 kernel_size: 4 stride: 2 pad_type: SAME }",
        "convolution_param { num_output: 4 kernel_size: 1 kernel_size: 2 stride: 2 stride: 4 pad_type: SAME }",
    ],
    "Dropout": [""],
    "Eltwise": [
        ("", [(2, 6, 7)] * 3),
        ("eltwise_param { operation: PROD }", [(2, 6, 7)] * 3),
        ("eltwise_param { operation: MAX }", [(2, 6, 7)] * 2),
        ("eltwise_param { coeff: 0.5 coeff: -1 }", [(2, 6, 7)] * 2),
    ],
    "ELU": ["", "elu_param { alpha: 0.3 }"],
    "Embed": [("embed_param { num_output: 5 input_dim: 9 }", [(2, 4)])],
    "Exp": ["", "exp_param { base: 2 scale: 0.5 shift: 1 }"],
    "Flip": [("", [(2, 3, 4, 5)]), ("flip_param { flip_height: true }", [(2, 3, 4, 5)])],
    "GroupNorm": ["", "group_norm_param { group: 3 eps: 0.01 }", ("group_norm_param { group: 2 }", [(2, 6)])],
    "LayerNorm": ["", "layer_norm_param { axis: 1 num_axes: 1 eps: 0.01 }", "layer_norm_param { axis: 1 }", "layer_norm_param { axis: 0 num_axes: 2 }"],
    "MatMul": [
        ("", [(2, 6, 7), (2, 7, 3)]),
        ("mat_mul_param { transpose_a: true transpose_b: true }", [(2, 3, 6, 7), (2, 3, 4, 6)]),
        ("mat_mul_param { transpose_a: true }", [(6, 7), (6, 4)]),
    ],
    "Pad": [
        *(f"pad_param {{ top: 1 left: 2 right: 3 {param} }}" for param in ("", "value: 0.5", "mode: REFLECT", "mode: EDGE bottom: -1", "mode: WRAP")),
        "pad_param { }",
    ],
    "PriorBox": [("prior_box_param { min_size: 4 max_size: 9 aspect_ratio: 2 }", [(2, 3, 4, 5), (2, 3, 16, 20)])],
    "Resize": [
        "resize_param { height: 7 width: 3 }",
        "resize_param { scale_h: 1.5 scale_w: 0.7 mode: NEAREST transform: ASYMMETRIC rounding: FLOOR }",
        "resize_param { scale_h: 2 scale_w: 2 mode: CUBIC transform: PYTORCH_HALF_PIXEL }",
        "resize_param { height: 2 width: 2 mode: CUBIC antialias: true exclude_outside: true }",
        "resize_param { height: 1 width: 1 transform: ALIGN_CORNERS }",
    ],
    "ROIAlign": [("roi_align_param { pooled_h: 2 pooled_w: 3 sampling_ratio: 2 }", [(1, 6, 7, 8), (4, 5)])],
    "ROIPooling": [("roi_pooling_param { pooled_h: 2 pooled_w: 3 }", [(1, 6, 7, 8), (4, 5)])],
    "Transpose": [
        ("transpose_param { dim: 0 dim: 2 dim: 1 dim: 3 }", [(2, 3, 4, 5)]),
        ("transpose_param { dim: 3 dim: 0 dim: 1 dim: 2 }", [(2, 3, 4, 5)]),
    ],
    "Flatten": ["", "flatten_param { axis: 2 }", "flatten_param { axis: 0 end_axis: 1 }"],
    "GELU": ["", "gelu_param { approximate: TANH }"],
    "HardSigmoid": ["", "hard_sigmoid_param { alpha: 0.5 beta: 0.2 }"],
    "HardSwish": [""],
    "InnerProduct": [
        "inner_product_param { num_output: 5 }",
        "inner_product_param { num_output: 5 transpose: true bias_term: false }",
        "inner_product_param { num_output: 5 axis: 2 }",
        "inner_product_param { num_output: 5 axis: -1 transpose: true }",
        "inner_product_param { num_output: 5 axis: 0 }",
        ("inner_product_param { num_output: 5 }", [(2, 9)]),
    ],
    "Interp": ["interp_param { height: 11 width: 5 }", "interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }"],
    "Log": ["log_param { scale: 0.1 shift: 2 }", "log_param { base: 10 scale: 0.1 shift: 2 }"],
    "LRN": [
        "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }",
        "lrn_param { local_size: 5 alpha: 0.5 beta: 0.6 norm_region: WITHIN_CHANNEL }",
    ],
    "Mish": [""],
    "MVN": ["", "mvn_param { across_channels: true }", "mvn_param { normalize_variance: false }"],
    "Normalize": ["", "norm_param { across_spatial: false channel_shared: false }"],
    "Parameter": [],
    "Permute": ["permute_param { order: 0 order: 2 order: 3 order: 1 }", "permute_param { order: 1 }"],
    "Pooling": [
        "pooling_param { kernel_size: 2 stride: 2 }",
        "pooling_param { kernel_size: 3 stride: 2 }",
        "pooling_param { kernel_size: 3 stride: 2 pad: 1 }",
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 }",
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
        "pooling_param { pool: AVE kernel_h: 2 kernel_w: 5 stride: 3 pad_w: 2 }",
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 round_mode: FLOOR }",
        "pooling_param { pool: AVE global_pooling: true }",
        "pooling_param { kernel_size: 3 stride: 2 pad_type: SAME }",
        "pooling_param { pool: AVE kernel_h: 3 kernel_w: 4 stride: 2 pad_type: SAME }",
        "pooling_param { pool: AVE kernel_size: 2 pad_type: SAME }",
        "pooling_param { global_pooling: true }",
    ],
    "Power": ["power_param { power: 2 scale: 0.5 shift: 1 }", "power_param { scale: -1 }", ""],
    "PReLU": ['prelu_param { filler { type: "gaussian" } }', "prelu_param { channel_shared: true }", ("", [(2, 6)])],
    "Reduction": [
        *(f"reduction_param {{ operation: {name} axis: 1 coeff: 0.5 }}" for name in ("SUM", "ASUM", "SUMSQ", "MEAN")),
        "reduction_param { axis: -1 }",
        "",
    ],
    "ReLU": ["", "relu_param { negative_slope: 0.1 }"],
    "ReLU6": [""],
    "Reshape": [
        "reshape_param { shape { dim: 0 dim: -1 } }",
        "reshape_param { axis: 1 num_axes: 1 shape { dim: 2 dim: 3 } }",
        "reshape_param { shape { dim: 4 dim: -1 } }",
    ],
    "Scale": [
        'scale_param { filler { type: "gaussian" } bias_term: true bias_filler { type: "gaussian" } }',
        'scale_param { axis: 2 num_axes: 2 filler { type: "gaussian" } }',
        'scale_param { num_axes: 0 filler { type: "gaussian" } }',
        ("", [(2, 6, 7, 8), (6,)]),
        ('scale_param { axis: 0 bias_term: true bias_filler { type: "gaussian" } }', [(2, 6, 7, 8), (2, 6)]),
    ],
    "SELU": ["", "selu_param { lambda: 0.7 alpha: 2 }"],
    "ShuffleChannel": ["shuffle_channel_param { group: 3 }"],
    "Sigmoid": [""],
    "Silence": [],
    "SiLU": [""],
    "Slice": [("slice_param { slice_point: 1 slice_point: 4 }", [(2, 6, 7, 8)], 3), ("slice_param { axis: 2 }", [(2, 6, 8)], 2)],
    "Softmax": ["", "softmax_param { axis: 2 }"],
    "Split": [("", [(2, 6)], 2)],
    "SPP": ["spp_param { pyramid_height: 3 }", "spp_param { pyramid_height: 2 pool: AVE }", "spp_param { pyramid_height: 1 }"],
    "Swish": ["", "swish_param { beta: 2 }"],
    "TanH": [""],
    "Threshold": ["threshold_param { threshold: 0.3 }"],
    "Tile": ["tile_param { tiles: 3 }", "tile_param { axis: 3 tiles: 2 }"],
    "Upsample": ["upsample_param { scale: 3 }"],
}  # fmt: skip
"""Layer type -> its options, or (options, shapes of the bottoms, number of tops); one bottom of 2 x 6 x 7 x 8 by default."""


def one_layer(kind: str, case: str | tuple) -> Net:
    options, shapes, tops = (*((case, [(2, 6, 7, 8)]) if isinstance(case, str) else case), 1)[:3]
    text = 'name: "one layer"\n'
    for j, shape in enumerate(shapes):
        dims = " ".join(f"dim: {n}" for n in shape)
        text += f'layer {{ name: "x{j}" type: "Input" top: "x{j}" input_param {{ shape {{ {dims} }} }} }}\n'
    blobs = "".join(f' bottom: "x{j}"' for j in range(len(shapes))) + "".join(f' top: "y{j}"' for j in range(tops))
    return filled(f'{text}layer {{ name: "it" type: "{kind}"{blobs} {options} }}')


def filled(text: str | Path) -> Net:
    """The net with parameters from a normal distribution, variances and their factor above zero."""
    net = Net(prototxt.parse(text, pb.NetParameter) if isinstance(text, str) else text, phase=pb.TEST, seed=0)
    random = np.random.default_rng(0)
    for param in net.learnable:
        values = random.standard_normal(param.blob.shape)
        param.blob.data[...] = values / np.sqrt(
            param.blob.count / param.blob.shape[0] if param.blob.num_axes > 1 else 1
        )
    for layer in net.layers:
        if layer.TYPE == "BatchNorm":
            layer.blobs[1].data[...] = random.random(layer.blobs[1].shape) + 0.5
            layer.blobs[2].data[...] = 2
    return net


@pytest.mark.parametrize("kind, case", [(kind, case) for kind, cases in CASES.items() for case in cases])
def test_layer_is_the_same_in_onnxruntime(kind: str, case: str | tuple) -> None:
    _, difference = export(one_layer(kind, case))
    assert difference is not None
    assert difference.relative < 1e-5


@pytest.mark.parametrize("kind", LAYERS)
def test_every_layer_type_is_written_or_known_not_to_be(kind: str) -> None:
    written = bool(LAYERS[kind].ONNX) or LAYERS[kind].to_onnx is not Layer.to_onnx
    where = "tests/exchange/test_export.py"
    if written:
        assert kind in CASES, f"{kind} is written as ONNX: give its options a line in CASES of {where}"
        assert kind not in NOT_WRITTEN, f"{kind} is written as ONNX: its line in NOT_WRITTEN of {where} can go"
    else:
        assert kind in NOT_WRITTEN, (
            f"say what {kind} is in ONNX: ONNX = (OnnxOperator(...),) in its class, or a method to_onnx; "
            f"where nothing in ONNX computes the same, a line in NOT_WRITTEN of {where}"
        )


@pytest.mark.parametrize(("kind", "opset", "ir_version"), [("Mish", 18, 8), ("GELU", 20, 9)])
def test_model_is_of_the_oldest_operator_set_that_has_its_operators(kind: str, opset: int, ir_version: int) -> None:
    found = to_onnx(one_layer(kind, ""))
    assert [entry.version for entry in found.opset_import] == [opset]
    assert found.ir_version == ir_version
    assert [node.op_type for node in found.graph.node] == [LAYERS[kind].ONNX[0].name]


def light(path: Path) -> Any:
    return pytest.param(path, marks=[pytest.mark.slow] if path.parent.name in LARGE else [], id=path.parent.name)


@pytest.mark.parametrize("path", [light(path) for path in MODELS])
def test_model_is_the_same_in_onnxruntime_for_any_batch_and_comes_back(path: Path, tmp_path: Path) -> None:
    net = filled(path)
    model, difference = export(net)
    assert difference is not None
    assert difference.relative < 1e-5
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    for name in net.inputs:
        net.blobs[name].reshape(3, *net.blobs[name].shape[1:])
    net.reshape()
    again = compare_with_onnxruntime(model, net, seed=5)
    assert again is not None
    assert again.relative < 1e-5
    back = imported(model, tmp_path)
    assert list(back.inputs) == list(net.inputs) and list(back.outputs) == list(net.outputs)


def test_net_that_ends_in_detection_output_is_an_error_at_the_layer() -> None:
    path = Path(__file__).parents[2] / "models" / "mobilenet_ssd" / "deploy.prototxt"
    with pytest.raises(DefinitionError, match="a DetectionOutput layer cannot be written as ONNX"):
        export(Net(path, phase=pb.TEST))


def imported(model: Any, folder: Path) -> Net:
    """The model's net; ``from_onnx`` has compared the two in onnxruntime."""
    onnx.save(model, str(folder / "m.onnx"))
    found = from_onnx(folder / "m.onnx")
    assert found.difference is not None and found.difference.relative < 1e-5
    return Net(prototxt.Definition(found.message), found.weights, pb.TEST)


COMPACTED = {
    "kept columns": "kernel_size: 3 pad: 1",
    "kept columns of groups": "kernel_size: 3 pad: 1 group: 2",
    "one channel a group": "kernel_size: 3 stride: 2 group: 6",
    "single weights": "kernel_size: 3 conv_mode: DIRECT_SCONV",
    "sparse rows": "kernel_size: 3 pad: 1 conv_mode: LOWERED_CSRMM",
    "tried out": "kernel_size: 3 pad: 1 conv_mode: AUTO",
    "more than the padding": "kernel_size: 5 pad: 1 dilation: 2",
}


@pytest.mark.parametrize("options", COMPACTED.values(), ids=list(COMPACTED))
@pytest.mark.parametrize("standard", [True, False], ids=["standard", "own"])
def test_compacted_net_is_the_same_in_onnxruntime(options: str, standard: bool, tmp_path: Path) -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } } }
    layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
    layer { name: "norm" type: "BatchNorm" bottom: "a" top: "a" }
    layer { name: "scale" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true } }
    layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
    layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: 6 OPTIONS } }
    layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" inner_product_param { num_output: 3 } }
    """
    net = filled(text.replace("OPTIONS", options))
    net.params["a"][0].data[[1, 4]] = 0
    weights = net.params["b"][0].data
    weights[0] = 0
    weights[:, 0, 0] = 0
    weights[..., 0] = 0
    weights[np.random.default_rng(1).random(weights.shape) < 0.3] = 0
    result = compact(net.definition, net.to_proto(), standard_only=standard)
    small = Net(prototxt.Definition(result.message), result.weights, pb.TEST)
    model, difference = export(small)
    assert difference is not None and difference.relative < 1e-5
    imported(model, tmp_path)


CHAIN = """
name: "a chain"
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" }
layer { name: "a" type: "InnerProduct" bottom: "conv" top: "a" param { name: "w" } param { name: "b" }
        inner_product_param { num_output: 3 } }
layer { name: "b" type: "InnerProduct" bottom: "conv" top: "b" param { name: "w" } param { name: "b" }
        inner_product_param { num_output: 3 } }
layer { name: "drop" type: "Dropout" bottom: "b" top: "kept" }
layer { name: "same" type: "Dropout" bottom: "data" top: "data_again" }
"""


def test_blobs_and_parameters_keep_their_names() -> None:
    model, difference = export(filled(CHAIN), {"preprocessing": {"scale": 0.5}, "note": "yes"})
    assert difference is not None and difference.relative < 1e-5
    produced = [name for node in model.graph.node for name in node.output]
    assert {"conv", "conv/conv", "conv/relu", "a", "b", "kept", "data_again"} <= set(produced)
    assert [info.name for info in model.graph.output] == ["a", "kept", "data_again"]
    constants = [constant.name for constant in model.graph.initializer]
    assert {"conv.0", "conv.1", "a.0", "a.1"} <= set(constants)
    assert "b.0" not in constants  # one blob for both
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert props == {"name": "a chain", "preprocessing": '{"scale": 0.5}', "note": "yes"}


def test_layer_that_needs_the_net_s_batch_fixes_it() -> None:
    model = to_onnx(one_layer("Permute", "permute_param { order: 1 }"))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


@pytest.mark.parametrize(
    "kind, case, message",
    [
        ("LSTM", ("recurrent_param { num_output: 3 }", [(4, 2, 5), (4, 2)]), "a LSTM layer cannot be written as ONNX"),
        ("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }", "STOCHASTIC pooling cannot be written"),
        ("BatchNorm", "batch_norm_param { use_global_stats: false }", "BatchNorm with the statistics of the batch"),
    ],
)
def test_what_onnx_has_not_is_one_error_that_names_the_layer(kind: str, case: str | tuple, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as caught:
        to_onnx(one_layer(kind, case))
    assert caught.value.layer == "it"


def test_preprocessing_is_what_the_data_layer_does() -> None:
    text = 'layer { name: "d" type: "Data" top: "data" transform_param { scale: 0.5 mirror: true mean_value: 104 } }'
    assert preprocessing(prototxt.parse(text, pb.NetParameter).message) == {"scale": 0.5, "mean_value": [104.0]}
