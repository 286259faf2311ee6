"""compact and layers of other kinds: Deconvolution, Embed, MVN, LSTM and RNN, parameters shared by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.layers import LAYERS
from sslnet.net.net import Net

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 6 } } }'


def filters(
    name: str, bottom: str, count: int, more: str = "kernel_size: 3", kind: str = "Convolution", param: str = ""
) -> str:
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {param} '
        f"convolution_param {{ num_output: {count} {more} }} }}"
    )


def product(name: str, bottom: str, param: str = "", outputs: int = 3) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {param} '
        f"inner_product_param {{ num_output: {outputs} }} }}"
    )


Compact = Callable[[list[str], Callable[[Net], None]], dict[str, list[tuple[int, ...]]]]


@pytest.fixture
def compacted(make_net: Callable[..., Net], outputs_agree: Callable[..., None]) -> Compact:
    """compacted(layers, change): shapes of the blobs after compaction, the outputs found to be the same."""

    def run(layers: list[str], change: Callable[[Net], None]) -> dict[str, list[tuple[int, ...]]]:
        text = "\n".join(layers)
        net = make_net(text)
        change(net)
        definition, weights = prototxt.parse(text, pb.NetParameter), net.to_proto()
        result = compact(definition, weights, standard_only=True)
        outputs_agree(definition.message, weights, result.message, result.weights)
        return {layer.name: [tuple(blob.shape.dim) for blob in layer.blobs] for layer in result.weights.layer}

    return run


def put(name: str, place: Any, value: float = 0, index: int = 0) -> Callable[[Net], None]:
    def change(net: Net) -> None:
        net.params[name][index].data[place] = value

    return change


DECONVOLUTION = [
    INPUT,
    filters("a", "data", 6),
    filters("up", "a", 5, "kernel_size: 3 stride: 2 pad: 1", "Deconvolution"),
    filters("b", "up", 2),
]


def test_deconvolution_loses_channels_of_both_sides(compacted: Compact) -> None:
    def change(net: Net) -> None:
        put("a", [1, 4])(net)
        put("up", (slice(None), [0, 2]))(net)
        put("up", [0, 2], index=1)(net)
        put("a", [1, 4], index=1)(net)

    assert compacted(DECONVOLUTION, change) == {
        "a": [(4, 3, 3, 3), (4,)],
        "up": [(4, 3, 3, 3), (3,)],
        "b": [(2, 3, 3, 3), (2,)],
    }


def test_deconvolution_that_reads_nothing_of_a_channel_frees_it(compacted: Compact) -> None:
    assert compacted(DECONVOLUTION, put("up", [3]))["a"] == [(5, 3, 3, 3), (5,)]


def test_deconvolution_takes_in_constants(compacted: Compact) -> None:
    """Those of a, as a map, for its stride makes them differ from pixel to pixel; its own outputs with their bias."""

    def change(net: Net) -> None:
        put("a", [1])(net)
        put("up", (slice(None), [0]))(net)

    found = compacted(DECONVOLUTION, change)
    assert found["up"][0][1] == 4 and found["a"][0][0] in (5, 6)


def test_grouped_deconvolution_goes_group_by_group(compacted: Compact) -> None:
    layers = [
        *DECONVOLUTION[:2],
        filters("up", "a", 6, "kernel_size: 2 stride: 2 group: 3", "Deconvolution"),
        DECONVOLUTION[3],
    ]
    found = compacted(layers, lambda net: (put("up", slice(2, 4))(net), put("up", slice(2, 4), index=1)(net))[0])
    assert found["up"] == [(4, 2, 2, 2), (4,)] and found["a"][0][0] == 4


@pytest.mark.parametrize("operation", ["PROD", "MAX"])
def test_products_and_maxima_lose_what_is_zero_in_all(compacted: Compact, operation: str) -> None:
    layers = [
        INPUT,
        filters("a", "data", 4),
        filters("b", "data", 4),
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" top: "e" eltwise_param { operation: '
        + operation
        + " } }",
        product("ip", "e"),
    ]
    found = compacted(layers, lambda net: (put("a", [1, 2])(net), put("b", [2, 3])(net))[0])
    assert found["a"][0][0] == found["b"][0][0] == 3


def test_mvn_loses_channels(compacted: Compact) -> None:
    layers = [
        INPUT,
        filters("a", "data", 4),
        'layer { name: "m" type: "MVN" bottom: "a" top: "m" }',
        product("ip", "m"),
    ]
    assert compacted(layers, put("ip", (slice(None), slice(0, 20))))["a"][0][0] == 3


def test_embed_loses_columns(make_net: Callable[..., Net]) -> None:
    text = "\n".join(
        [
            'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 5 } } }',
            'layer { name: "e" type: "Embed" bottom: "data" top: "e" embed_param { input_dim: 9 num_output: 6 } }',
            product("ip", "e"),
        ]
    )
    net = make_net(text)
    net.params["e"][0].data[:, [1, 4]] = 0
    net.params["ip"][0].data[:, 5] = 0
    result = compact(prototxt.parse(text, pb.NetParameter), net.to_proto())
    assert [tuple(blob.shape.dim) for blob in result.weights.layer[0].blobs] == [(9, 3), (3,)]
    words = np.array([3, 8, 0, 1, 1])
    expected = net.forward(data=words)["ip"].copy()
    found = Net(result.message, result.weights).forward(data=words)["ip"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_static_input_of_a_recurrent_layer_loses_channels(compacted: Compact, kind: str) -> None:
    layers = [
        INPUT,
        'layer { name: "x" type: "Input" top: "x" top: "cont" '
        "input_param { shape { dim: 4 dim: 2 dim: 3 } shape { dim: 4 dim: 2 } } }",
        filters("a", "data", 4),
        f'layer {{ name: "r" type: "{kind}" bottom: "x" bottom: "cont" bottom: "a" top: "r" '
        "recurrent_param { num_output: 5 } }",
    ]
    found = compacted(layers, put("r", (slice(None), slice(20, 60)), index=2))
    assert found["a"][0][0] == 2 and found["r"][2][1] == 40


def twins() -> list[str]:
    """Two chains with the same weights, one for each of two images."""
    layers = []
    for k in "12":
        layers += [
            INPUT.replace('"data"', f'"data{k}"'),
            filters(f"c{k}", f"data{k}", 4, param='param { name: "w" } param { name: "b" }'),
            product(f"p{k}", f"c{k}", 'param { name: "wp" } param { name: "bp" }'),
        ]
    return layers


def test_layers_that_share_parameters_lose_the_same(compacted: Compact) -> None:
    found = compacted(twins(), put("c1", [0, 2]))
    assert found["c1"] == found["c2"] == [(2, 3, 3, 3), (2,)]
    assert found["p1"] == found["p2"]


def test_layers_that_share_keep_what_one_of_them_needs(compacted: Compact) -> None:
    """Behind one of them a channel is read, behind the other it is not."""
    layers = [*twins()[:2], *twins()[3:5], product("p1", "c1"), product("p2", "c2")]

    def change(net: Net) -> None:
        put("p1", (slice(None), slice(0, 40)))(net)
        put("p2", (slice(None), slice(20, 60)))(net)

    found = compacted(layers, change)
    assert found["c1"] == found["c2"] == [(3, 3, 3, 3), (3,)]


def test_constants_that_shared_layers_would_take_in_differently_stay(compacted: Compact) -> None:
    shared = 'param { name: "w" } param { name: "b" }'
    layers = [
        INPUT,
        filters("a", "data", 4),
        filters("b", "data", 4),
        product("p", "a", shared),
        product("q", "b", shared),
    ]

    def change(net: Net) -> None:
        put("a", [1])(net)
        put("b", [1])(net)

    found = compacted(layers, change)
    assert found["a"][0][0] == found["b"][0][0] == 4


def eltwise(operation: str, *bottoms: str) -> str:
    names = " ".join(f'bottom: "{name}"' for name in bottoms)
    return f'layer {{ name: "e" type: "Eltwise" {names} top: "e" eltwise_param {{ operation: {operation} }} }}'


def test_zero_factor_takes_its_channel_from_the_product_and_the_other_factors(compacted: Compact) -> None:
    layers = [INPUT, filters("a", "data", 4), filters("b", "data", 4), eltwise("PROD", "a", "b"), product("ip", "e")]

    def change(net: Net) -> None:
        put("a", [1])(net)
        put("a", [1], index=1)(net)
        put("b", [3])(net)
        put("b", [3], index=1)(net)

    found = compacted(layers, change)
    assert found["a"][0][0] == found["b"][0][0] == 2 and found["ip"][0] == (3, 40)


def test_factor_that_is_constant_stays_where_its_channel_is_needed(compacted: Compact) -> None:
    layers = [INPUT, filters("a", "data", 4), filters("b", "data", 4), eltwise("PROD", "a", "b"), product("ip", "e")]
    found = compacted(layers, put("a", [1]))
    assert found["a"][0][0] == found["b"][0][0] == 4


@pytest.mark.parametrize("pad", [0, 1])
def test_product_loses_a_factor_that_is_constant(compacted: Compact, pad: int) -> None:
    """With padding it differs from pixel to pixel, and the Scale layer behind the product with it."""
    window = f"kernel_size: 3 pad: {pad}"
    layers = [
        INPUT,
        filters("z", "data", 2),
        filters("a", "z", 4, window),
        filters("b", "z", 4, window),
        eltwise("PROD", "a", "b"),
        product("ip", "e"),
    ]
    found = compacted(layers, put("a", slice(0, 4)))
    assert "a" not in found and found["e_constant"] == [(4,)]
    layers[1] = filters("z", "data", 2, "kernel_size: 3 bias_term: false")
    layers.insert(2, filters("y", "data", 2))
    layers[3] = filters("a", "y", 4, window)
    found = compacted(layers, put("y", slice(0, 2)))
    assert "a" not in found and found["e_constant"] == [(4, 5, 4) if pad else (4,)]


SQUEEZE = [
    INPUT,
    filters("a", "data", 4),
    'layer { name: "pool" type: "Pooling" bottom: "a" top: "pool" pooling_param { pool: AVE global_pooling: true } }',
    product("in", "pool", outputs=2),
    product("out", "in", outputs=4),
    'layer { name: "gate" type: "Sigmoid" bottom: "out" top: "gate" }',
    'layer { name: "times" type: "Scale" bottom: "a" bottom: "gate" top: "times" scale_param { axis: 0 } }',
    product("ip", "times"),
]


def test_gate_that_is_constant_goes_with_the_branch_that_made_it(compacted: Compact) -> None:
    found = compacted(SQUEEZE, put("out", slice(0, 4)))
    assert set(found) == {"a", "times_constant", "ip"} and found["times_constant"] == [(4,)]


def test_gate_that_is_zero_takes_its_channel(compacted: Compact) -> None:
    """Where the gate is not made from the same channels, which it would keep alive."""
    layers = [layer.replace('type: "Sigmoid"', 'type: "ReLU"') for layer in SQUEEZE]
    layers[2] = layers[2].replace('bottom: "a"', 'bottom: "data"')

    def change(net: Net) -> None:
        put("out", [1])(net)
        put("out", [1], -1.0, index=1)(net)

    found = compacted(layers, change)
    assert found["ip"][0] == (3, 60) and found["out"][0] == (3, 2) and found["a"][0][0] == 3


def test_constant_factors_stay_when_constants_are_dropped(make_net: Callable[..., Net]) -> None:
    layers = [INPUT, filters("a", "data", 4), filters("b", "data", 4), eltwise("PROD", "a", "b"), product("ip", "e")]
    text = "\n".join(layers)
    net = make_net(text)
    put("a", slice(0, 4))(net)
    result = compact(prototxt.parse(text, pb.NetParameter), net.to_proto(), drop_constants=True)
    assert result.difference.relative < 1e-5 and result.factors == ["e"]


@pytest.mark.parametrize("across", ["true", "false"])
@pytest.mark.parametrize("shared", ["true", "false"])
def test_normalize_loses_channels_that_are_zero_alone(compacted: Compact, across: str, shared: str) -> None:
    param = f"norm_param {{ across_spatial: {across} channel_shared: {shared} }}"
    layers = [
        INPUT,
        filters("a", "data", 5),
        f'layer {{ name: "n" type: "Normalize" bottom: "a" top: "n" {param} }}',
        filters("b", "n", 2),
    ]

    def change(net: Net) -> None:
        put("a", [1, 2, 3])(net)
        put("a", [1, 3], index=1)(net)
        put("b", (slice(None), [0, 3]))(net)

    found = compacted(layers, change)
    assert found["a"][0][0] == 3 and found["n"] == [(1 if shared == "true" else 3,)] and found["b"][0][1] == 3


@pytest.mark.parametrize(
    ("layer", "left"),
    [
        ('type: "Upsample" upsample_param { scale: 2 }', 3),
        ('type: "Reduction" reduction_param { operation: SUMSQ axis: 2 }', 3),
        ('type: "SPP" spp_param { pyramid_height: 1 }', 3),
        ('type: "SPP" spp_param { pyramid_height: 2 pool: AVE }', 3),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 2 }', 4),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', 6),
        ('type: "Crop" bottom: "data" crop_param { axis: 2 offset: 1 }', 3),
        ('type: "Crop" bottom: "a" crop_param { axis: 1 }', 6),
    ],
)
def test_layers_that_move_values_hand_their_channels_on(compacted: Compact, layer: str, left: int) -> None:
    """Channels 0, 1 and 4 of six are zero; a shuffled one stays while another at its place in another group does."""
    layers = [
        INPUT,
        filters("a", "data", 6, "kernel_size: 3 pad: 2"),
        f'layer {{ name: "l" bottom: "a" top: "l" {layer} }}',
        product("ip", "l"),
    ]

    def change(net: Net) -> None:
        put("a", [0, 1, 4])(net)
        put("a", [0, 1, 4], index=1)(net)

    assert compacted(layers, change)["a"][0][0] == left


def test_documentation_says_what_every_layer_does() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = text.split("**Layer types.**")[1].split("### Nets for other programs")[0]
    told = [name.strip() for line in table.splitlines()[4:] if line for name in line.split("|")[1].split(",")]
    assert sorted(told) == sorted(LAYERS)
