"""What layers say of their channels: a net with zero filters in front of each layer, compacted, computes the same.

``compact`` itself compares the outputs of both nets and refuses when they differ; what is checked here is how much went.
"""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.net.net import Net

from .harness import inputs


def convolution(name: str, bottom: str = "x", num_output: int = 6) -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"'
        f" convolution_param {{ num_output: {num_output} kernel_size: 2 }} }}\n"
    )


def after(type_: str, param: str = "", bottoms: tuple[str, ...] = ("c",), top: str = "y") -> str:
    names = "".join(f' bottom: "{name}"' for name in bottoms)
    return f'layer {{ name: "l" type: "{type_}"{names} top: "{top}" {param} }}\n'


def end(bottom: str = "y") -> str:
    param = "inner_product_param { num_output: 3 }"
    return f'layer {{ name: "end{bottom}" type: "InnerProduct" bottom: "{bottom}" top: "end{bottom}" {param} }}\n'


def kept_filters(text: str) -> dict[str, int]:
    """Filters left of each convolution, of which two do nothing and one gives a constant; its outputs are compared."""
    message = prototxt.parse(inputs(x=(2, 2, 5, 5)) + text, pb.NetParameter)
    net = Net(message, seed=0)
    random = np.random.default_rng(0)
    for param in net.learnable:
        if param.layer.TYPE == "BatchNorm":
            param.blob.data[...] = random.uniform(0.5, 2, param.blob.shape)
            continue
        param.blob.data[...] = random.standard_normal(param.blob.shape)
        if param.layer.TYPE == "Convolution":
            param.blob.data[[1, 4, 5]] = 0
            if param.index == 1:
                param.blob.data[4] = 0.7
    result = compact(message, net.to_proto())
    return {
        layer.name: layer.convolution_param.num_output for layer in result.message.layer if layer.type == "Convolution"
    }


ONE_TO_ONE = {
    "AbsVal": "",
    "BatchNorm": "",
    "BNLL": "",
    "Clip": "clip_param { min: -0.5 max: 0.5 }",
    "ELU": "",
    "Exp": "exp_param { scale: 0.1 }",
    "Interp": "interp_param { height: 3 width: 7 }",
    "Permute": "permute_param { order: 0 order: 1 order: 3 order: 2 }",
    "Power": "power_param { power: 2 shift: 1 }",
    "PReLU": "",
    "ReLU6": "",
    "Scale": "scale_param { bias_term: true }",
    "Sigmoid": "",
    "Swish": "",
    "TanH": "",
    "Threshold": "",
    "Tile": "tile_param { axis: 2 tiles: 2 }",
}


@pytest.mark.parametrize("type_", ONE_TO_ONE)
def test_channels_go_through_a_layer_that_keeps_them_apart(type_):
    assert kept_filters(convolution("c") + after(type_, ONE_TO_ONE[type_]) + end()) == {"c": 3}


@pytest.mark.parametrize(
    "middle",
    [
        after("Flatten"),
        after("Flatten", "flatten_param { axis: 2 }"),
        after("Reshape", "reshape_param { shape { dim: 0 dim: 96 } }"),
        after("Reshape", "reshape_param { shape { dim: 2 dim: 6 dim: 16 } }"),
        after("Scale", "scale_param { num_axes: -1 bias_term: true }"),
        after("Scale", "scale_param { num_axes: 0 }"),
        after("PReLU", "prelu_param { channel_shared: true }"),
        after("Tile", "tile_param { tiles: 3 }"),
    ],
)
def test_channels_go_through_other_forms_of_a_layer(middle):
    assert kept_filters(convolution("c") + middle + end()) == {"c": 3}


@pytest.mark.parametrize(
    "middle",
    [
        after("MVN", "mvn_param { across_channels: true }"),
        after("Scale", "scale_param { axis: 0 num_axes: -1 bias_term: true }"),
        after("Bias", "bias_param { axis: 0 num_axes: -1 }"),
        after("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
        after("Reshape", "reshape_param { shape { dim: 0 dim: 3 dim: -1 } }"),
        after("Reshape", "reshape_param { shape { dim: -1 dim: 6 dim: 4 } }"),
    ],
)
def test_channels_stay_where_a_layer_mixes_or_moves_them(middle):
    assert kept_filters(convolution("c") + middle + end()) == {"c": 6}


@pytest.mark.parametrize(
    ("middle", "kept"),
    [
        (after("Reduction", "reduction_param { axis: 2 }"), 3),
        (after("Normalize", "norm_param { }"), 4),  # a constant channel is part of the norm
        (after("ShuffleChannel", "shuffle_channel_param { group: 2 }"), 4),  # as many of each group
    ],
)
def test_channels_go_where_a_layer_can_do_without_them(middle, kept):
    assert kept_filters(convolution("c") + middle + end()) == {"c": kept}


@pytest.mark.parametrize("param", ["", "eltwise_param { operation: PROD }", "eltwise_param { operation: MAX }"])
def test_channels_of_an_eltwise_go_when_they_go_from_all_bottoms(param):
    text = convolution("a") + convolution("b") + after("Eltwise", param, ("a", "b")) + end()
    assert kept_filters(text) == {"a": 3, "b": 3}


def test_channels_of_a_shortcut_stay_in_both_branches():
    text = convolution("a", num_output=6) + after("Eltwise", "", ("a", "b")) + end()
    mixed = 'layer { name: "b" type: "MVN" bottom: "a" top: "b" mvn_param { across_channels: true } }\n'
    assert kept_filters(text.replace('layer { name: "l"', mixed + 'layer { name: "l"')) == {"a": 6}


@pytest.mark.parametrize(("param", "kept"), [("", 3), ("concat_param { axis: 0 }", 3), ("concat_param { axis: 3 }", 3)])
def test_channels_of_a_concat_go(param, kept):
    text = convolution("a") + convolution("b") + after("Concat", param, ("a", "b")) + end()
    assert kept_filters(text) == {"a": kept, "b": kept}


def test_channels_of_a_slice_go_from_their_part():
    cut = 'layer { name: "l" type: "Slice" bottom: "c" top: "y" top: "z" slice_param { slice_point: 2 } }\n'
    assert kept_filters(convolution("c") + cut + end("y") + end("z")) == {"c": 3}


def test_channels_of_a_slice_along_another_axis_go_from_all_parts():
    cut = 'layer { name: "l" type: "Slice" bottom: "c" top: "y" top: "z" slice_param { axis: 3 } }\n'
    assert kept_filters(convolution("c") + cut + end("y") + end("z")) == {"c": 3}


def test_channels_of_squeeze_and_excitation_go_from_both_bottoms():
    pool = 'layer { name: "p" type: "Pooling" bottom: "b" top: "p" pooling_param { pool: AVE global_pooling: true } }\n'
    flat = 'layer { name: "f" type: "Flatten" bottom: "p" top: "f" }\n'
    branches = convolution("a") + convolution("b") + pool + flat
    assert kept_filters(branches + after("Scale", "scale_param { axis: 0 }", ("a", "f")) + end()) == {"a": 3, "b": 3}
    shortcut = convolution("d") + after("Axpy", "", ("f", "a", "d")) + end()
    assert kept_filters(branches + shortcut) == {"a": 3, "b": 3, "d": 3}


def test_a_channel_with_a_scale_of_zero_goes():
    message = prototxt.parse(
        inputs(x=(2, 2, 5, 5)) + convolution("c") + after("Scale", "scale_param { bias_term: true }") + end(),
        pb.NetParameter,
    )
    net = Net(message, seed=0)
    random = np.random.default_rng(0)
    for param in net.learnable:
        param.blob.data[...] = random.standard_normal(param.blob.shape)
    net.params["l"][0].data[[0, 3]] = 0
    result = compact(message, net.to_proto())
    assert result.message.layer[1].convolution_param.num_output == 4
