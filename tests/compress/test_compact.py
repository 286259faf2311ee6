"""compact: what goes, what stays, where constants go; the small net is the pruned one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.errors import RunError, WeightsError
from sslnet.net import weights
from sslnet.net.net import Net
from sslnet.prototxt import Definition

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 6 } } }'


def conv(name: str, bottom: str, filters: int, more: str = "kernel_size: 3") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: {filters} {more} }} }}"
    )


def product(name: str, bottom: str, outputs: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        f"inner_product_param {{ num_output: {outputs} }} }}"
    )


def simple(name: str, kind: str, bottom: str, top: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more} }}'


def define(*layers: str) -> Definition:
    return prototxt.parse("\n".join(layers), pb.NetParameter)


def zero_filters(net: Net, layer: str, *filters: int, bias: float | None = None) -> None:
    net.params[layer][0].data[list(filters)] = 0
    if bias is not None:
        net.params[layer][1].data[list(filters)] = bias


def shapes(weights: Any) -> dict[str, list[tuple[int, ...]]]:
    return {layer.name: [tuple(blob.shape.dim) for blob in layer.blobs] for layer in weights.layer}


CHAIN = (
    INPUT,
    conv("conv1", "data", 6),
    simple("relu1", "ReLU", "conv1", "conv1"),
    simple("pool1", "Pooling", "conv1", "pool1", "pooling_param { kernel_size: 2 stride: 2 }"),
    conv("conv2", "pool1", 5, "kernel_size: 2"),
    product("ip", "conv2", 4),
)


def test_compact_removes_zero_filters_and_what_they_feed(make_net: Callable[..., Net]) -> None:
    net = make_net("\n".join(CHAIN))
    zero_filters(net, "conv1", 1, 4, bias=0)
    zero_filters(net, "conv2", 0, bias=0)
    result = compact(define(*CHAIN), net.to_proto())
    assert shapes(result.weights) == {
        "conv1": [(4, 3, 3, 3), (4,)],
        "conv2": [(4, 4, 2, 2), (4,)],
        "ip": [(4, 4 * 2), (4,)],
    }
    assert result.constants == []


def test_compact_gives_the_outputs_of_the_pruned_net(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    net = make_net("\n".join(CHAIN))
    zero_filters(net, "conv1", 1, 4)
    zero_filters(net, "conv2", 0, 2, bias=-3)
    weights = net.to_proto()
    result = compact(define(*CHAIN), weights)
    outputs_agree(define(*CHAIN).message, weights, result.message, result.weights)
    assert result.difference.relative < 1e-5


def test_compact_removes_a_filter_nobody_reads(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    net = make_net("\n".join(CHAIN))
    net.params["conv2"][0].data[:, 2] = 0  # the channel of conv1's filter 2
    net.params["ip"][0].data[:, 6:8] = 0  # the two values of conv2's filter 3
    weights = net.to_proto()
    result = compact(define(*CHAIN), weights)
    assert shapes(result.weights)["conv1"][0] == (5, 3, 3, 3)
    assert shapes(result.weights)["conv2"][0] == (4, 5, 2, 2)
    outputs_agree(define(*CHAIN).message, weights, result.message, result.weights)


def test_compact_removes_backwards_through_a_layer_that_dies(make_net: Callable[..., Net]) -> None:
    """conv2 reads conv1's filter 0 with its filter 1 alone, and ip does not read that."""
    net = make_net("\n".join(CHAIN))
    net.params["conv2"][0].data[[0, 2, 3, 4], 0] = 0
    net.params["ip"][0].data[:, 2:4] = 0
    result = compact(define(*CHAIN), net.to_proto())
    assert shapes(result.weights)["conv1"][0] == (5, 3, 3, 3)
    assert shapes(result.weights)["conv2"][0] == (4, 5, 2, 2)


def test_compact_leaves_a_dense_net_as_it_is(make_net: Callable[..., Net]) -> None:
    net = make_net("\n".join(CHAIN))
    weights = net.to_proto()
    result = compact(define(*CHAIN), weights)
    assert result.message == define(*CHAIN).message
    assert result.removed == 0
    for before, after in zip((layer for layer in weights.layer if layer.blobs), result.weights.layer, strict=True):
        assert list(before.blobs) == list(after.blobs)


def test_constant_goes_into_the_bias_without_padding(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    net = make_net("\n".join(CHAIN))
    zero_filters(net, "conv1", 1, 4, bias=0.75)
    weights = net.to_proto()
    result = compact(define(*CHAIN), weights)
    assert result.constants == ["conv2"]
    w, b = (blob.data for blob in net.params["conv2"])
    expected = b + 0.75 * w[:, [1, 4]].sum(axis=(1, 2, 3))
    np.testing.assert_allclose(list(result.weights.layer[1].blobs[1].data), expected, rtol=1e-5)
    outputs_agree(define(*CHAIN).message, weights, result.message, result.weights)


def test_constant_gives_a_bias_to_a_layer_without_one(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    layers = (INPUT, conv("conv1", "data", 4), conv("conv2", "conv1", 3, "kernel_size: 2 bias_term: false"))
    net = make_net("\n".join(layers))
    zero_filters(net, "conv1", 2, bias=1.5)
    weights = net.to_proto()
    result = compact(define(*layers), weights)
    assert shapes(result.weights)["conv2"] == [(3, 3, 2, 2), (3,)]
    outputs_agree(define(*layers).message, weights, result.message, result.weights)


PADDED = (
    INPUT,
    conv("conv1", "data", 4, "kernel_size: 5"),
    simple("relu1", "ReLU", "conv1", "conv1"),
    conv("conv2", "conv1", 3, "kernel_size: 3 pad: 1"),
    simple("relu2", "ReLU", "conv2", "conv2"),
)
LARGER = (PADDED[0], PADDED[1].replace("kernel_size: 5", "kernel_size: 3 pad: 2"), *PADDED[2:])


def test_constant_behind_padding_becomes_a_bias_layer(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    net = make_net("\n".join(PADDED))
    zero_filters(net, "conv1", 0, bias=2)
    weights = net.to_proto()
    result = compact(define(*PADDED), weights)
    assert (result.constants, result.maps, result.carriers) == ([], ["conv2"], [])
    assert [layer.name for layer in result.message.layer] == [
        "data",
        "conv1",
        "relu1",
        "conv2",
        "conv2_constant",
        "relu2",
    ]
    carrier = result.message.layer[4]
    assert (carrier.type, carrier.bias_param.axis, carrier.bias_param.num_axes) == ("Bias", 1, -1)
    assert carrier.param[0].lr_mult == 0
    assert shapes(result.weights)["conv2_constant"] == [(3, 3, 2)]
    outputs_agree(define(*PADDED).message, weights, result.message, result.weights)


def test_constants_behind_padding_of_a_large_map_are_carried_by_one_channel(
    make_net: Callable[..., Net], outputs_agree: Callable
) -> None:
    """A map of 3 x 9 x 8 numbers, or 3 x 3 x 3 weights of one channel more."""
    net = make_net("\n".join(LARGER))
    zero_filters(net, "conv1", 0, 1, 3)
    net.params["conv1"][1].data[:] = 1.5, 2, 0.1, -1
    weights = net.to_proto()
    result = compact(define(*LARGER), weights)
    assert (result.constants, result.maps, result.carriers) == ([], [], ["conv2"])
    w = net.params["conv2"][0].data
    kept = np.array(result.weights.layer[1].blobs[0].data).reshape(3, 2, 3, 3)
    np.testing.assert_allclose(kept[:, 0], w[:, 1] + 1.5 / 2 * w[:, 0], rtol=1e-5)  # the strongest, filter 1, stays
    np.testing.assert_array_equal(kept[:, 1], w[:, 2])
    outputs_agree(define(*LARGER).message, weights, result.message, result.weights)


def test_carrier_is_one_channel_for_all_that_read_it(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    layers = (*LARGER, conv("conv3", "conv1", 2, "kernel_size: 3 pad: 2"), conv("conv4", "conv1", 2))
    net = make_net("\n".join(layers))
    zero_filters(net, "conv1", 0, 1)
    net.params["conv1"][1].data[:] = 1.5, 2, 0.1, -1
    weights = net.to_proto()
    result = compact(define(*layers), weights)
    assert shapes(result.weights)["conv1"][0] == (3, 3, 3, 3)
    assert (result.constants, result.maps, result.carriers) == (["conv4"], [], ["conv2", "conv3"])
    outputs_agree(define(*layers).message, weights, result.message, result.weights)


def test_constants_that_are_not_the_same_everywhere_are_carried_by_some(
    make_net: Callable[..., Net], outputs_agree: Callable
) -> None:
    """Six channels of a map that differs at the border, all sums of two of them."""
    layers = (
        *LARGER[:2],
        conv("conv2", "conv1", 8, "kernel_size: 3 pad: 1"),
        conv("conv3", "conv2", 5, "kernel_size: 3 pad: 1"),
    )
    net = make_net("\n".join(layers))
    zero_filters(net, "conv1", 0, bias=1.5)
    w, b = (blob.data for blob in net.params["conv2"])
    w[:6, 1:] = b[:6] = 0
    w[2:6, 0] = np.einsum("ab,bhw->ahw", [[1, 1], [0.5, -1], [-1, 0.25], [0, 1]], w[:2, 0])
    weights = net.to_proto()
    result = compact(define(*layers), weights)
    assert (result.constants, result.maps, result.carriers) == ([], [], ["conv2", "conv3"])
    assert shapes(result.weights)["conv2"][0] == (4, 4, 3, 3)
    outputs_agree(define(*layers).message, weights, result.message, result.weights)


def test_standard_nets_have_carriers_where_a_map_is_smaller(
    make_net: Callable[..., Net], outputs_agree: Callable
) -> None:
    net = make_net("\n".join(PADDED))
    zero_filters(net, "conv1", 0, bias=2)
    weights = net.to_proto()
    result = compact(define(*PADDED), weights, standard_only=True)
    assert (result.constants, result.maps, result.carriers) == ([], [], ["conv2"])
    outputs_agree(define(*PADDED).message, weights, result.message, result.weights)


def test_constant_that_relu_stops_leaves_no_trace(make_net: Callable[..., Net]) -> None:
    net = make_net("\n".join(PADDED))
    zero_filters(net, "conv1", 0, bias=-2)
    result = compact(define(*PADDED), net.to_proto())
    assert (result.constants, result.maps, result.carriers) == ([], [], [])
    assert [layer.type for layer in result.message.layer] == [layer.type for layer in define(*PADDED).message.layer]


def test_constants_can_be_dropped_on_request(make_net: Callable[..., Net]) -> None:
    net = make_net("\n".join(PADDED))
    zero_filters(net, "conv1", 0, bias=2)
    result = compact(define(*PADDED), net.to_proto(), drop_constants=True)
    assert (result.constants, result.maps, result.carriers) == ([], [], [])
    assert len(result.message.layer) == len(PADDED)
    assert result.difference.relative > 1e-3


def test_branch_that_cannot_shrink_keeps_the_channels(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    """LRN across channels reads conv1's neighbours, so conv2 goes on reading the constant filter."""
    layers = (
        INPUT,
        conv("conv1", "data", 4),
        conv("conv2", "conv1", 3),
        simple("norm", "LRN", "conv1", "norm"),
        conv("conv3", "norm", 2),
    )
    net = make_net("\n".join(layers))
    zero_filters(net, "conv1", 1, bias=1)
    zero_filters(net, "conv2", 0)
    weights = net.to_proto()
    result = compact(define(*layers), weights)
    assert shapes(result.weights)["conv1"][0] == (4, 3, 3, 3)
    assert shapes(result.weights)["conv2"][0] == (3, 4, 3, 3)  # an output of the net keeps all
    outputs_agree(define(*layers).message, weights, result.message, result.weights)


def test_fan_out_removes_what_no_branch_reads(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    layers = (INPUT, conv("conv1", "data", 4), conv("left", "conv1", 3), product("right", "conv1", 2))
    net = make_net("\n".join(layers))
    net.params["left"][0].data[:, [0, 1]] = 0
    net.params["right"][0].data[...].reshape(2, 4, -1)[:, [1, 2]] = 0
    weights = net.to_proto()
    result = compact(define(*layers), weights)
    assert shapes(result.weights) == {
        "conv1": [(3, 3, 3, 3), (3,)],
        "left": [(3, 2 * 3 * 3), (3,)],
        "right": [(2, 3 * 5 * 4), (2,)],
    }
    outputs_agree(define(*layers).message, weights, result.message, result.weights)


def test_layer_that_would_lose_every_channel_is_named(make_net: Callable[..., Net]) -> None:
    net = make_net("\n".join(CHAIN))
    zero_filters(net, "conv1", *range(6))
    with pytest.raises(RunError) as caught:
        compact(define(*CHAIN), net.to_proto())
    assert caught.value.span is not None and CHAIN[1].startswith(caught.value.span.text)
    assert str(caught.value).startswith(
        f"<text>:{caught.value.line}:1: error: the layer would lose every channel: all its filters are zero\n"
    )
    assert str(caught.value).endswith(
        '  layer "conv1"; use a weaker penalty on it, or keep one filter: the net would be cut in two'
    )


def test_layer_that_nothing_reads_is_named(make_net: Callable[..., Net]) -> None:
    net = make_net("\n".join(CHAIN))
    net.params["conv2"][0].data[...] = 0
    with pytest.raises(RunError, match='no remaining layer reads its top "conv1"') as caught:
        compact(define(*CHAIN), net.to_proto())
    assert caught.value.layer == "conv1"


def test_file_is_read_once_and_three_nets_are_built(
    make_net: Callable[..., Net], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pruned net in both phases, and the smaller one."""
    net = make_net("\n".join(CHAIN))
    zero_filters(net, "conv1", 1, 4)
    path = tmp_path / "net.caffemodel"
    net.save(path)
    counts = dict.fromkeys(("read", "built"), 0)

    def count(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[what] += 1
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(weights, "read_message", count("read", weights.read_message))
    monkeypatch.setattr(Net, "__init__", count("built", Net.__init__))
    compact(net.definition, path)
    assert counts == {"read": 1, "built": 3}


def test_weights_of_another_net_are_refused(make_net: Callable[..., Net]) -> None:
    weights = make_net("\n".join(CHAIN[:5])).to_proto()
    with pytest.raises(WeightsError, match="no weights for a layer of the net: ip"):
        compact(define(*CHAIN), weights)


def test_layers_that_share_a_parameter_keep_their_channels(
    make_net: Callable[..., Net], outputs_agree: Callable
) -> None:
    shared = 'param { name: "w" } convolution_param { num_output: 3 kernel_size: 1 bias_term: false } }'
    layers = (
        INPUT,
        f'layer {{ name: "a" type: "Convolution" bottom: "data" top: "a" {shared}',
        f'layer {{ name: "b" type: "Convolution" bottom: "a" top: "b" {shared}',
        conv("c", "b", 2),
    )
    net = make_net("\n".join(layers))
    zero_filters(net, "a", 1)
    weights = net.to_proto()
    result = compact(define(*layers), weights)
    assert shapes(result.weights)["a"] == shapes(result.weights)["b"] == [(3, 3, 1, 1)]
    outputs_agree(define(*layers).message, weights, result.message, result.weights)


def test_grouped_convolution_goes_group_by_group(make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    layers = (
        INPUT,
        conv("conv1", "data", 6),
        conv("conv2", "conv1", 4, "kernel_size: 2 group: 2"),
        product("ip", "conv2", 2),
    )
    net = make_net("\n".join(layers))
    zero_filters(net, "conv2", 0, 1, bias=0.5)  # the first group: conv1's filters 0 to 2 feed nothing
    zero_filters(net, "conv1", 4, bias=1)
    weights = net.to_proto()
    result = compact(define(*layers), weights)
    assert shapes(result.weights)["conv1"][0] == (2, 3, 3, 3)
    outputs_agree(define(*layers).message, weights, result.message, result.weights)


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_equal_places_of_all_groups_go(kind: str, make_net: Callable[..., Net], outputs_agree: Callable) -> None:
    """Place 1 of three inputs and place 0 of four outputs have no use in any group; place 3 of the outputs is of use in one
    group alone, place 2 of the inputs too: they stay in all. The third group goes."""
    grouped = conv("grouped", "conv1", 12, "kernel_size: 2 group: 3").replace("Convolution", kind)
    layers = (INPUT, conv("conv1", "data", 9), grouped, product("ip", "grouped", 2))
    net = make_net("\n".join(layers))
    weights = net.params["grouped"][0].data
    matrix = weights.reshape(3, 4, 3, 4) if kind == "Convolution" else weights.reshape(3, 3, 4, 4).swapaxes(1, 2)
    matrix[:, :, 1] = 0
    matrix[:, 0] = 0
    matrix[1:, 3] = 0
    matrix[:2, :, 2] = 0
    matrix[0, 1, 2] = 1
    matrix[2] = 0
    result = compact(define(*layers), net.to_proto())
    small = Net(result.message, result.weights)
    assert [small.blobs[name].shape[1] for name in ("conv1", "grouped")] == [4, 6]
    assert next(layer for layer in result.message.layer if layer.name == "grouped").convolution_param.group == 2
    outputs_agree(define(*layers).message, net.to_proto(), result.message, result.weights)


# -- definitions for training and testing --------------------------------------------------------------------------

DUMMY = (
    'layer {{ name: "data" type: "DummyData" top: "data" top: "label" include {{ phase: {phase} }} dummy_data_param {{ '
    "shape {{ dim: {batch} dim: 3 dim: 7 dim: 6 }} shape {{ dim: {batch} }} "
    'data_filler {{ type: "gaussian" std: 1 }} data_filler {{ type: "constant" value: 1 }} }} }}'
)
TRAIN_TEST = (
    DUMMY.format(phase="TRAIN", batch=5),
    DUMMY.format(phase="TEST", batch=3),
    *CHAIN[1:],
    simple("drop", "Dropout", "ip", "drop"),
    product("aux", "conv2", 3).replace("}", "} include { phase: TRAIN }", 1),
    product("score", "drop", 2),
    'layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy" include { phase: TEST } }',
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }',
)


def train_test_weights(make_net: Callable[..., Net]) -> Any:
    """Weights of all layers of both phases; conv1's filter 1, conv2's 3, ip's 2 are zero, all with a bias."""
    net = make_net("\n".join(TRAIN_TEST), pb.TRAIN)
    for layer, index in (("conv1", 1), ("conv2", 3), ("ip", 2)):
        zero_filters(net, layer, index, bias=0.5)
    return net.to_proto()


def test_train_test_definition_keeps_data_layers_and_rules(make_net: Callable[..., Net]) -> None:
    before = define(*TRAIN_TEST).message
    after = compact(define(*TRAIN_TEST), train_test_weights(make_net)).message
    assert [layer.name for layer in after.layer] == [layer.name for layer in before.layer]
    for old, new in zip(before.layer, after.layer, strict=True):
        assert list(old.include) == list(new.include)
        if old.type == "DummyData":
            assert old == new
    sizes = {layer.name: layer.convolution_param.num_output for layer in after.layer if layer.type == "Convolution"}
    assert sizes == {"conv1": 5, "conv2": 5}, "the layer of TRAIN alone reads conv2's constant filter"


def test_train_test_definition_trains_on_in_both_phases(make_net: Callable[..., Net]) -> None:
    result = compact(define(*TRAIN_TEST), train_test_weights(make_net))
    for phase in (pb.TRAIN, pb.TEST):
        net = Net(result.message, result.weights, phase, seed=0)
        assert net.copy_from(result.weights).missing == []
        net.forward()
        assert np.isfinite(net.loss)
    net = Net(result.message, result.weights, pb.TRAIN, seed=0)
    net.forward_backward()
    assert all(np.isfinite(param.blob.diff).all() for param in net.learnable)


def test_measures_are_compared_by_what_they_are_made_from(make_net: Callable[..., Net]) -> None:
    result = compact(define(*TRAIN_TEST), train_test_weights(make_net))
    assert [blob.name for blob in result.difference.blobs] == ["score"]
    assert result.difference.inputs == "data of the net"


def test_deploy_definition_takes_input_and_gives_probabilities(make_net: Callable[..., Net]) -> None:
    weights = train_test_weights(make_net)
    result = compact(define(*TRAIN_TEST), weights)
    assert [layer.type for layer in result.deploy.layer] == [
        "Input", "Convolution", "ReLU", "Pooling", "Convolution", "InnerProduct", "Dropout", "InnerProduct", "Softmax",
    ]  # fmt: skip
    deployed = Net(result.deploy, result.weights)
    assert (deployed.inputs, deployed.outputs) == (["data"], ["prob"])
    image = np.random.default_rng(0).standard_normal((1, 3, 7, 6)).astype(np.float32)
    pruned = Net(define(*TRAIN_TEST), weights, pb.TEST, seed=0)
    pruned.forward()
    pruned.blobs["data"].data[...] = image
    score = pruned.forward(start="conv1", end="score")["score"][0].astype(np.float64)
    expected = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
    np.testing.assert_allclose(deployed.forward(data=image)["prob"][0], expected, atol=1e-5)


def test_tiles_become_smaller_with_the_weights_or_go(make_net: Callable[..., Net]) -> None:
    tiles = """param { block_group_lasso { xdimen: 27 ydimen: 4 } block_group_lasso { xdimen: 9 ydimen: 1 }
      block_group_lasso { xdimen: 27 ydimen: 2 } group_lasso { group: BLOCK xdimen: 3 ydimen: 4 }
      group_lasso { group: BLOCK xdimen: 3 ydimen: 2 } group_lasso { group: FILTER } }"""
    layers = (
        INPUT,
        conv("conv1", "data", 4, "kernel_size: 3").replace("convolution_param", f"{tiles} convolution_param"),
        conv("conv2", "conv1", 3),
    )
    net = make_net("\n".join(layers))
    zero_filters(net, "conv1", 1, bias=0)
    result = compact(define(*layers), net.to_proto())
    (spec,) = result.message.layer[1].param
    assert [(block.ydimen, block.xdimen) for block in spec.block_group_lasso] == [(3, 27), (1, 9)]
    named = [(group.group, group.ydimen, group.xdimen) for group in spec.group_lasso]
    assert named == [(pb.GroupLassoSpec.BLOCK, 3, 3), (pb.GroupLassoSpec.FILTER, 1, 1)]
    assert len(result.notes) == 1 and "conv1" in result.notes[0] and "tiles" in result.notes[0]


def test_deploy_definition_of_several_losses_has_an_output_for_each(make_net: Callable[..., Net]) -> None:
    """The one with the largest weight is called prob."""
    ip = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "data" top: "{0}" inner_product_param {{ num_output: 3 }} }}'
    )
    loss = """layer {{ name: "loss/{0}" type: "SoftmaxWithLoss" bottom: "{0}" bottom: "label" top: "loss/{0}"
      loss_weight: {1} }}"""
    names = (("first", 0.3), ("second", 1), ("third", 0.3))
    layers = (
        """layer { name: "data" type: "DummyData" top: "data" top: "label"
          dummy_data_param { shape { dim: 4 dim: 5 } shape { dim: 4 } } }""",
        *(text.format(name, weight) for name, weight in names for text in (ip, loss)),
    )
    result = compact(define(*layers), make_net("\n".join(layers)).to_proto())
    assert Net(result.deploy, result.weights).outputs == ["loss/first_prob", "prob", "loss/third_prob"]


def test_deploy_definition_has_no_fillers_rates_or_rules(make_net: Callable[..., Net]) -> None:
    text = prototxt.write(compact(define(*TRAIN_TEST), train_test_weights(make_net)).deploy)
    assert not any(word in text for word in ("filler", "lr_mult", "phase", "label"))


def test_deploy_definition_of_a_deploy_net_is_not_made_again(make_net: Callable[..., Net]) -> None:
    net = make_net("\n".join(CHAIN))
    assert compact(define(*CHAIN), net.to_proto()).deploy is None


def test_compaction_counts_parameters_and_flops_before_and_after(make_net: Callable[..., Net]) -> None:
    net = make_net("\n".join(CHAIN))
    zero_filters(net, "conv1", 1, 4, bias=0)
    sizes = {layer.name: layer for layer in compact(define(*CHAIN), net.to_proto()).layers}
    conv1, conv2 = sizes["conv1"], sizes["conv2"]
    assert (conv1.before.parameters, conv1.after.parameters) == (6 * 28, 4 * 28)
    assert (conv2.before.flops, conv2.after.flops) == (2 * 2 * 5 * 2 * 1 * 24, 2 * 2 * 5 * 2 * 1 * 16)
    assert (conv2.before.channels, conv2.after.channels) == (6, 4)


def test_compact_takes_an_old_definition_made_by_hand() -> None:
    old = Definition(pb.NetParameter(input=["x"], input_dim=[2, 3, 8, 8]))
    layer = old.message.layers.add(name="c", type=pb.V1LayerParameter.CONVOLUTION, bottom=["x"], top=["c"])
    layer.convolution_param.num_output = 4
    layer.convolution_param.kernel_size.append(3)
    layer.convolution_param.weight_filler.type = "xavier"
    end = old.message.layers.add(name="p", type=pb.V1LayerParameter.INNER_PRODUCT, bottom=["c"], top=["p"])
    end.inner_product_param.num_output = 2
    end.inner_product_param.weight_filler.type = "xavier"
    net = Net(old, seed=1)
    zero_filters(net, "c", 1)
    result = compact(old, net.to_proto())
    assert shapes(result.weights)["c"][0] == (3, 3, 3, 3)
    assert [layer.name for layer in result.message.layer if layer.type != "Input"] == ["c", "p"]
