"""Groups: what is read from the definitions, which weights each named group has, and what it cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.layers import LAYERS
from sslnet.net.net import Net
from sslnet.sparsity.group_penalty import Tiling
from sslnet.sparsity.groups import WEIGHTS, matrix_shape, tiles_of, tilings_of
from sslnet.sparsity.tiled_group_lasso import TiledGroupLasso


def read(conv_param: str, solver: str, group: int = 1) -> list[Tiling]:
    net = Net(
        prototxt.parse(
            'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 dim: 8 dim: 8 } } }\n'
            f'layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y" param {{ {conv_param} }}\n'
            f"  convolution_param {{ num_output: 6 kernel_size: 3 group: {group} }} }}",
            pb.NetParameter,
            path="net.prototxt",
        )
    )
    return tilings_of(net.learnable[0], prototxt.parse(solver, pb.SolverParameter))


def test_fields_become_tilings_of_the_weight_matrix() -> None:
    found = read(
        "breadth_decay_mult: 2 kernel_shape_decay_mult: 3 block_group_lasso { xdimen: 9 ydimen: 3 block_decay_mult: 0.5 }",
        "breadth_decay: 0.25 kernel_shape_decay: 0.5 block_group_decay: 4",
    )
    assert set(found) == {Tiling(1, 36, 0.5), Tiling(6, 1, 1.5), Tiling(3, 9, 2.0)}


def test_columns_belong_to_a_conv_group() -> None:
    found = read("kernel_shape_decay_mult: 1", "kernel_shape_decay: 1", group=2)
    assert found == [Tiling(3, 1, 1.0)]


def test_same_tiles_add_up() -> None:
    found = read(
        "breadth_decay_mult: 1 block_group_lasso { xdimen: 36 ydimen: 1 }", "breadth_decay: 1 block_group_decay: 2"
    )
    assert found == [Tiling(1, 36, 3.0)]


@pytest.mark.parametrize(
    "conv_param, solver",
    [("", "breadth_decay: 1"), ("breadth_decay_mult: 1", ""), ("breadth_decay_mult: 0", "breadth_decay: 1")],
)
def test_decay_or_mult_alone_is_no_penalty(conv_param: str, solver: str) -> None:
    assert read(conv_param, solver) == []


@pytest.mark.parametrize("tile", ["xdimen: 5 ydimen: 1", "xdimen: 36 ydimen: 4", "xdimen: 0 ydimen: 1"])
def test_tile_that_does_not_cover_the_matrix_is_an_error_at_its_place(tile: str) -> None:
    with pytest.raises(DefinitionError, match="do not cover the 6 x 36 matrix of conv") as caught:
        read(f"lr_mult: 1 block_group_lasso {{ {tile} }}", "block_group_decay: 1")
    assert (caught.value.path, caught.value.line) == ("net.prototxt", 2)
    assert caught.value.span is not None
    assert caught.value.span.text[caught.value.span.column - 1 :].startswith("block_group_lasso")
    assert caught.value.hint == "ydimen must divide 6, and xdimen 36"


def test_negative_strength_is_an_error() -> None:
    with pytest.raises(DefinitionError, match="negative strength -1"):
        read("breadth_decay_mult: -1", "breadth_decay: 1")


# -- groups by their names ---------------------------------------------------------------------------------------------

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 3 dim: 5 } } }\n'
LAYER = {
    "Convolution": "convolution_param { num_output: 6 kernel_h: 2 kernel_w: 3 group: 2 }",
    "DepthwiseConvolution": "convolution_param { num_output: 8 kernel_size: 2 }",
    "Deconvolution": "convolution_param { num_output: 6 kernel_h: 2 kernel_w: 3 group: 2 }",
    "InnerProduct": "inner_product_param { num_output: 7 }",
    "InnerProduct, transposed": "inner_product_param { num_output: 7 transpose: true }",
    "Embed": "embed_param { input_dim: 9 num_output: 7 }",
}


def net(layer: str, param: str = "") -> Net:
    """The layer behind a blob of 2 x 4 x 3 x 5, in float64, with random weights."""
    name = layer.split(",")[0]
    text = f'layer {{ name: "l" type: "{name}" bottom: "x" top: "y" {param} {LAYER[layer]} }}'
    built = Net(prototxt.parse(INPUT + text, pb.NetParameter, path="net.prototxt"), phase=pb.TRAIN, dtype=np.float64)
    random = np.random.default_rng(1)
    for blob in built.params["l"]:
        blob.data[...] = random.standard_normal(blob.shape)
    built.blobs["x"].data[...] = random.integers(0, 9, (2, 4, 3, 5))
    return built


def groups_of(built: Net, group: str) -> list[np.ndarray]:
    """The groups of the weights, each as a mask of the blob's shape."""
    param = built.learnable[0]
    height, width = tiles_of(param)[group]
    rows, columns = param.blob.shape[0], param.blob.count // param.blob.shape[0]
    masks = []
    for i in range(0, rows, height):
        for j in range(0, columns, width):
            mask = np.zeros((rows, columns), bool)
            mask[i : i + height, j : j + width] = True
            masks.append(mask.reshape(param.blob.shape))
    return masks


def silent_outputs(built: Net, mask: np.ndarray) -> np.ndarray:
    """Which top channels are zero for every input when the masked weights are."""
    blobs = built.params["l"]
    kept = blobs[0].data.copy()
    blobs[0].data[mask], blobs[1].data[...] = 0, 0
    built.forward()
    y = built.blobs["y"].data
    axis = y.ndim - 1 if y.ndim == 5 or y.ndim == 2 else 1  # Embed's outputs are its last axis
    silent = ~y.any(axis=tuple(k for k in range(y.ndim) if k != axis))
    blobs[0].data[...] = kept
    return silent


@pytest.mark.parametrize("layer", LAYER)
def test_group_of_an_output_silences_that_output_alone(layer: str) -> None:
    built = net(layer)
    group = "FILTER" if "onvolution" in layer else "OUTPUT_NEURON"
    outputs = [silent_outputs(built, mask) for mask in groups_of(built, group)]
    np.testing.assert_array_equal(outputs, np.eye(len(outputs), dtype=bool))


@pytest.mark.parametrize("layer", [name for name in LAYER if name != "Embed"])
def test_group_of_a_channel_is_all_that_depends_on_it(layer: str) -> None:
    """The top's derivative by one bottom channel vanishes for the groups of that channel, one after the other."""
    built = net(layer)
    weights, x, y = built.params["l"][0].data, built.blobs["x"], built.blobs["y"]
    masks = groups_of(built, "CHANNEL")
    assert len(masks) == 4
    for channel, mask in enumerate(masks):
        kept = weights.copy()
        weights[mask] = 0
        before = x.data.copy()
        built.forward()
        base = y.data.copy()
        moved = []
        for other in range(4):
            x.data[...] = before
            x.data[:, other] += 1
            built.forward()
            moved.append(bool(np.abs(y.data - base).max() > 1e-9))
        assert moved == [other != channel for other in range(4)]
        weights[...], x.data[...] = kept, before


@pytest.mark.parametrize("layer", ["InnerProduct", "InnerProduct, transposed"])
def test_input_neuron_is_one_value_of_the_bottom(layer: str) -> None:
    built = net(layer)
    masks = groups_of(built, "INPUT_NEURON")
    assert len(masks) == 4 * 3 * 5
    channels = groups_of(built, "CHANNEL")
    for index, mask in enumerate(masks):
        assert mask.sum() == 7
        assert (channels[index // 15] | mask == channels[index // 15]).all()


def test_input_neuron_of_an_embed_is_a_row_of_its_table() -> None:
    masks = groups_of(net("Embed"), "INPUT_NEURON")
    assert [np.flatnonzero(mask.all(axis=1)).tolist() for mask in masks] == [[i] for i in range(9)]


def test_shapes_and_planes_of_a_convolution_with_groups() -> None:
    built = net("Convolution")
    assert built.learnable[0].blob.shape == (6, 2, 2, 3)
    shapes, planes = groups_of(built, "SHAPE"), groups_of(built, "FILTER_2D")
    assert (len(shapes), len(planes)) == (2 * 12, 6 * 2)
    assert [tuple(np.argwhere(mask)[0]) for mask in shapes[:2]] == [(0, 0, 0, 0), (0, 0, 0, 1)]
    assert all(mask.sum() == 3 and mask[:3].any() != mask[3:].any() for mask in shapes)
    assert all(mask.any(axis=(2, 3)).sum() == 1 and mask.sum() == 6 for mask in planes)


@pytest.mark.parametrize("layer", LAYER)
def test_every_parameter_has_its_whole_and_its_elements(layer: str) -> None:
    for param in net(layer).learnable:
        rows = param.blob.shape[0]
        assert tiles_of(param)["LAYER"] == (rows, param.blob.count // rows)
        assert tiles_of(param)["ELEMENT"] == (1, 1)


def test_groups_of_a_bias_are_its_values() -> None:
    assert tiles_of(net("Convolution").learnable[1])["FILTER"] == (1, 1)
    assert tiles_of(net("InnerProduct").learnable[1])["OUTPUT_NEURON"] == (1, 1)


def test_layers_with_weights_are_those_with_groups() -> None:
    from sslnet.layers.base import Layer

    grouped = {type_ for type_, layer in LAYERS.items() if layer.group_tiles is not Layer.group_tiles}
    assert grouped - WEIGHTS == {"Scale"} and grouped >= WEIGHTS


def test_named_groups_become_tilings() -> None:
    found = read(
        "group_lasso { group: FILTER decay_mult: 2 } group_lasso { group: CHANNEL } group_lasso { group: SHAPE }"
        " group_lasso { group: FILTER_2D } group_lasso { group: LAYER } group_lasso { group: ELEMENT }"
        " group_lasso { group: BLOCK xdimen: 6 ydimen: 2 decay_mult: 4 }",
        "group_lasso_decay: 0.5",
        group=2,
    )
    assert {(t.height, t.width): t.strength for t in found} == {
        (1, 18): 1.0, (3, 9): 0.5, (3, 1): 0.5, (1, 9): 0.5, (6, 18): 0.5, (1, 1): 0.5, (2, 6): 2.0
    }  # fmt: skip


def test_named_groups_add_to_those_of_the_authors_fields() -> None:
    found = read("breadth_decay_mult: 1 group_lasso { }", "breadth_decay: 0.25 group_lasso_decay: 0.5")
    assert found == [Tiling(1, 36, 0.75)]


def test_scale_by_size_multiplies_named_groups_alone_by_the_root_of_their_size() -> None:
    scaled = "breadth_decay: 1 group_lasso_decay: 0.5 group_lasso_scale_by_size: true"
    found = read("breadth_decay_mult: 1 group_lasso { group: CHANNEL } group_lasso { group: ELEMENT }", scaled)
    strengths = {(t.height, t.width): t.strength for t in found}
    assert strengths == {(1, 36): 1.0, (6, 9): pytest.approx(0.5 * np.sqrt(54)), (1, 1): 0.5}


@pytest.mark.parametrize(
    "layer, index, group, hint",
    [
        ("Convolution", 0, "INPUT_NEURON", "it has FILTER, CHANNEL, SHAPE, FILTER_2D, LAYER, ELEMENT, BLOCK"),
        ("Deconvolution", 0, "SHAPE", "it has FILTER, CHANNEL, FILTER_2D, LAYER, ELEMENT, BLOCK"),
        ("InnerProduct", 0, "FILTER", "it has OUTPUT_NEURON, INPUT_NEURON, CHANNEL, LAYER, ELEMENT, BLOCK"),
        ("Convolution", 1, "CHANNEL", "it has FILTER, LAYER, ELEMENT, BLOCK"),
    ],
)
def test_group_that_the_parameter_does_not_have_is_an_error_at_its_place(
    layer: str, index: int, group: str, hint: str
) -> None:
    built = net(layer, "param { } " * index + f"param {{ group_lasso {{ group: {group} }} }}")
    with pytest.raises(DefinitionError, match=rf"l\[{index}\] of type {layer} has no groups {group}") as caught:
        tilings_of(built.learnable[index], prototxt.parse("group_lasso_decay: 1", pb.SolverParameter))
    assert caught.value.hint == hint
    assert caught.value.span is not None
    assert caught.value.span.text[caught.value.span.column - 1 :].startswith(group)


def test_neurons_over_another_axis_have_no_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYER, "InnerProduct", "inner_product_param { num_output: 7 axis: 2 }")
    assert "CHANNEL" not in tiles_of(net("InnerProduct").learnable[0])


def test_named_block_that_does_not_cover_the_matrix_is_an_error_at_its_place() -> None:
    with pytest.raises(DefinitionError, match="tiles of 4 x 5 do not cover the 6 x 36 matrix of conv") as caught:
        read("group_lasso { group: BLOCK xdimen: 5 ydimen: 4 }", "group_lasso_decay: 1")
    assert caught.value.span is not None
    assert caught.value.span.text[caught.value.span.column - 1 :].startswith("group_lasso")


@pytest.mark.parametrize("layer", ["Convolution", "Deconvolution", "InnerProduct", "InnerProduct, transposed"])
def test_groups_that_take_biases_are_as_many_as_these(layer: str) -> None:
    group = "FILTER" if "onvolution" in layer else "OUTPUT_NEURON"
    built = net(layer, f"param {{ group_lasso {{ group: {group} take_bias: true }} group_lasso {{ group: {group} }} }}")
    found = tilings_of(built.learnable[0], prototxt.parse("group_lasso_decay: 1", pb.SolverParameter))
    assert [tiling.bias for tiling in found] == [False, True]
    penalty = TiledGroupLasso(matrix_shape(built.learnable[0].blob.shape), found)
    assert penalty.nested
    assert penalty.biases == built.learnable[1].blob.count


def test_scale_by_size_counts_the_bias() -> None:
    found = read("group_lasso { take_bias: true }", "group_lasso_decay: 1 group_lasso_scale_by_size: true")
    assert found == [Tiling(1, 36, np.sqrt(37), bias=True)]


@pytest.mark.parametrize(
    "layer, param, solver, message",
    [
        ("Convolution", "param { group_lasso { group: SHAPE take_bias: true } }", "", "FILTER and OUTPUT_NEURON, not for SHAPE"),
        ("Convolution", "param { } param { group_lasso { take_bias: true } }", "", r"l\[1\] has no bias to include"),
        ("no bias", "param { group_lasso { take_bias: true } }", "", r"l\[0\] has no bias to include"),
        ("Convolution", "param { group_lasso { take_bias: true } }", "group_lasso_update: SUBGRADIENT", "needs proximal updates"),
    ],
)  # fmt: skip
def test_bias_that_is_not_there_to_be_taken_is_an_error_at_its_place(
    layer: str, param: str, solver: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layer == "no bias":
        monkeypatch.setitem(LAYER, "Convolution", "convolution_param { num_output: 6 kernel_size: 2 bias_term: false }")
        layer = "Convolution"
    with_decay = prototxt.parse(f"group_lasso_decay: 1 {solver}", pb.SolverParameter)
    with pytest.raises(DefinitionError, match=message) as caught:
        for blob in net(layer, param).learnable:
            tilings_of(blob, with_decay)
    assert caught.value.span is not None
    assert caught.value.span.text[caught.value.span.column - 1 :].startswith("take_bias")
