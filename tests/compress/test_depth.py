"""compact takes out branches that carry nothing: zero or constant terms of sums, Concat's bottoms without channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import Compaction, compact
from sslnet.errors import RunError
from sslnet.net.net import Net

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 6 } } }'


def conv(name: str, bottom: str, filters: int, more: str = "kernel_size: 3 pad: 1") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: {filters} {more} }} }}"
    )


def layer(name: str, kind: str, bottoms: str, tops: str | None = None, more: str = "") -> str:
    wires = [f'bottom: "{b}"' for b in bottoms.split()] + [
        f'top: "{t}"' for t in (name if tops is None else tops).split()
    ]
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(wires)} {more} }}'


def product(name: str, bottom: str, outputs: int = 3) -> str:
    return layer(name, "InnerProduct", bottom, name, f"inner_product_param {{ num_output: {outputs} }}")


def block(eltwise: str = "") -> list[str]:
    """stem, a residual block with BatchNorm inside, and what reads it."""
    return [
        INPUT,
        conv("stem", "data", 4),
        conv("a", "stem", 5),
        layer("bn", "BatchNorm", "a", "a"),
        layer("scale", "Scale", "a", "a", "scale_param { bias_term: true }"),
        layer("relu", "ReLU", "a", "a"),
        conv("b", "a", 4),
        layer("sum", "Eltwise", "stem b", "sum", f"eltwise_param {{ {eltwise} }}"),
        layer("relu2", "ReLU", "sum", "sum"),
        product("ip", "sum"),
    ]


@pytest.fixture
def compacted(make_net: Callable[..., Net], outputs_agree: Callable[..., None]) -> Callable[..., Compaction]:
    """compacted(layers, change): the net with its weights changed, compacted, and found to give the same outputs."""

    def run(layers: list[str], change: Callable[[dict[str, Any]], None]) -> Compaction:
        text = "\n".join(layers)
        net = make_net(text)
        for found in net.layers:
            if found.TYPE == "BatchNorm":
                for blob in found.blobs:
                    blob.data[...] = np.abs(blob.data) + 0.5
        change({f"{name}{i}": blob.data for name, blobs in net.params.items() for i, blob in enumerate(blobs)})
        definition, weights = prototxt.parse(text, pb.NetParameter), net.to_proto()
        result = compact(definition, weights)
        outputs_agree(definition.message, weights, result.message, result.weights)
        assert Net(result.message, result.weights).outputs == net.outputs
        return result

    return run


def names(result: Compaction) -> list[str]:
    return [found.name for found in result.message.layer]


def zero(*blobs: str) -> Callable[[dict[str, Any]], None]:
    def change(params: dict[str, Any]) -> None:
        for blob in blobs:
            params[blob][...] = 0

    return change


def test_zero_branch_goes_with_its_sum(compacted: Callable[..., Compaction]) -> None:
    result = compacted(block(), zero("b0", "b1"))
    assert names(result) == ["data", "stem", "relu2", "ip"]
    assert [w.name for w in result.weights.layer] == ["stem", "ip"]
    relu = result.message.layer[2]
    assert (list(relu.bottom), list(relu.top)) == (["stem"], ["sum"])


def test_branch_dead_inside_goes(compacted: Callable[..., Compaction]) -> None:
    """All filters of a are zero: b reads constants alone, and what it makes of them at the border is a map."""
    result = compacted(block(), zero("a0"))
    assert names(result) == ["data", "stem", "sum_constant", "relu2", "ip"]
    bias = result.message.layer[2]
    assert (list(bias.bottom), list(bias.top), bias.bias_param.num_axes) == (["stem"], ["sum"], -1)


def test_constant_of_a_branch_is_one_number_a_channel(compacted: Callable[..., Compaction]) -> None:
    result = compacted(block("coeff: 2 coeff: -3"), zero("b0"))
    assert names(result) == ["data", "stem", "sum", "sum_constant", "relu2", "ip"]
    assert result.message.layer[2].power_param.scale == 2
    assert result.maps == ["sum"]
    assert [tuple(blob.shape.dim) for w in result.weights.layer if w.name == "sum_constant" for blob in w.blobs] == [
        (4,)
    ]


def test_shortcut_that_is_zero_leaves_the_branch(compacted: Callable[..., Compaction]) -> None:
    layers = [*block()[:7], conv("c", "stem", 4), *block()[7:]]
    layers[8] = layers[8].replace('bottom: "stem"', 'bottom: "c"')
    result = compacted(layers, zero("c0", "c1"))
    assert "sum" not in names(result) and "c" not in names(result) and "b" in names(result)


def test_term_with_coefficient_0_goes(compacted: Callable[..., Compaction]) -> None:
    result = compacted(block("coeff: 1 coeff: 0"), lambda params: None)
    assert names(result) == ["data", "stem", "relu2", "ip"]


def test_sum_of_three_keeps_its_other_coefficients(compacted: Callable[..., Compaction]) -> None:
    layers = block("coeff: 2 coeff: -3 coeff: 0.5")
    layers[7:7] = [conv("c", "stem", 4)]
    layers[8] = layers[8].replace('bottom: "b"', 'bottom: "b" bottom: "c"')
    result = compacted(layers, zero("b0", "b1"))
    (total,) = (found for found in result.message.layer if found.type == "Eltwise")
    assert (list(total.bottom), list(total.eltwise_param.coeff)) == (["stem", "c"], [2, 0.5])


def test_term_that_others_read_goes_from_the_sum_alone(compacted: Callable[..., Compaction]) -> None:
    layers = block("coeff: 2 coeff: 0 coeff: 0.5")
    layers[7:7] = [conv("c", "stem", 4), layer("norm", "LRN", "b"), product("other", "norm")]
    layers[10] = layers[10].replace('bottom: "b"', 'bottom: "b" bottom: "c"')
    result = compacted(layers, lambda params: None)
    (total,) = (found for found in result.message.layer if found.type == "Eltwise")
    assert (list(total.bottom), list(total.eltwise_param.coeff)) == (["stem", "c"], [2, 0.5])


def test_output_keeps_its_name(compacted: Callable[..., Compaction]) -> None:
    result = compacted(block()[:8], zero("b0", "b1"))
    assert names(result) == ["data", "stem", "sum"]
    assert result.message.layer[2].type == "Power"


def test_blob_overwritten_before_it_is_read_keeps_the_copy(compacted: Callable[..., Compaction]) -> None:
    """Someone changes stem in place between the sum and the layer that reads the sum."""
    layers = [*block()[:8], layer("late", "ReLU", "stem", "stem"), product("ip", "sum"), product("ip2", "stem")]
    result = compacted(layers, zero("b0", "b1"))
    assert [found.type for found in result.message.layer if found.name == "sum"] == ["Power"]


def test_several_zero_blocks_in_a_row_go(compacted: Callable[..., Compaction]) -> None:
    layers = [INPUT, conv("stem", "data", 4)]
    below = "stem"
    for k in range(3):
        layers += [
            conv(f"b{k}", below, 4),
            layer(f"s{k}", "Eltwise", f"{below} b{k}"),
            layer(f"r{k}", "ReLU", f"s{k}", f"s{k}"),
        ]
        below = f"s{k}"
    result = compacted([*layers, product("ip", below)], zero("b00", "b01", "b10", "b11", "b20", "b21"))
    assert names(result) == ["data", "stem", "r0", "r1", "r2", "ip"]


def test_block_behind_an_activation_goes_with_it(compacted: Callable[..., Compaction]) -> None:
    """The branch starts with layers that work channel by channel on what the shortcut carries."""
    layers = [
        INPUT,
        conv("stem", "data", 4),
        layer("bn", "BatchNorm", "stem"),
        layer("relu", "ReLU", "bn", "bn"),
        layer("norm", "LRN", "bn"),
        conv("b", "norm", 4),
        layer("sum", "Eltwise", "stem b"),
        product("ip", "sum"),
    ]
    result = compacted(layers, zero("b0", "b1"))
    assert names(result) == ["data", "stem", "ip"]


def test_concat_loses_a_bottom_without_channels(compacted: Callable[..., Compaction]) -> None:
    layers = [
        INPUT,
        conv("a", "data", 4),
        conv("b", "data", 5),
        conv("c", "data", 2),
        layer("join", "Concat", "a b c"),
        product("ip", "join"),
    ]
    result = compacted(layers, zero("b0"))
    assert names(result) == ["data", "a", "c", "join", "ip"]
    result = compacted(layers, zero("a0", "b0"))
    assert names(result) == ["data", "c", "ip"]


def test_slice_loses_a_top_that_nobody_needs(compacted: Callable[..., Compaction]) -> None:
    layers = [
        INPUT,
        conv("a", "data", 6),
        layer("cut", "Slice", "a", "x y z", "slice_param { slice_point: 2 slice_point: 4 }"),
        product("p", "x"),
        conv("q", "y", 2),
        product("r", "z"),
        layer("quiet", "Silence", "q", ""),
    ]
    result = compacted(layers, lambda params: None)
    assert names(result) == ["data", "a", "cut", "p", "r"]
    (cut,) = (found for found in result.message.layer if found.name == "cut")
    assert (list(cut.top), list(cut.slice_param.slice_point)) == (["x", "z"], [2])


def test_silence_stays_for_a_blob_that_stays(compacted: Callable[..., Compaction]) -> None:
    layers = [INPUT, INPUT.replace('"data"', '"other"'), product("ip", "data"), layer("quiet", "Silence", "other", "")]
    assert names(compacted(layers, lambda params: None)) == ["data", "other", "ip", "quiet"]


def test_without_a_shortcut_losing_every_channel_is_an_error(make_net: Callable[..., Net]) -> None:
    text = "\n".join(
        [INPUT, conv("a", "data", 4), conv("b", "a", 4), layer("sum", "Eltwise", "a b"), product("ip", "sum")]
    )
    net = make_net(text)
    zero("a0", "b0")({f"{name}0": blobs[0].data for name, blobs in net.params.items()})
    with pytest.raises(RunError, match="would lose every channel: all its filters are zero") as caught:
        compact(prototxt.parse(text, pb.NetParameter), net.to_proto())
    assert caught.value.layer == "a"


@pytest.mark.parametrize("shift", [0, 2])
def test_zeros_of_a_shortcut_need_no_copies(compacted: Callable[..., Compaction], shift: float) -> None:
    """A shortcut of pixels and zeros: channels of the one and of the other go by themselves."""
    layers = [
        INPUT,
        conv("stem", "data", 4),
        layer("pixels", "Pooling", "stem", "pixels", "pooling_param { pool: AVE kernel_size: 1 }"),
        layer("zeros", "Power", "pixels", "zeros", f"power_param {{ scale: 0 shift: {shift} }}"),
        layer("short", "Concat", "pixels zeros"),
        conv("b", "stem", 8, "kernel_size: 3 pad: 1"),
        layer("sum", "Eltwise", "short b"),
        product("ip", "sum"),
    ]

    def change(params: dict[str, Any]) -> None:
        params["b0"][[4, 5, 7]] = 0

    result = compacted(layers, change)
    (zeros,) = (found for found in result.message.layer if found.name == "zeros")
    assert (zeros.type, zeros.convolution_param.num_output) == ("Convolution", 1)
    sizes = {size.name: size.after for size in result.layers}
    assert (sizes["stem"].filters, sizes["b"].filters, sizes["sum"].filters) == (4, 5, 5)


TRAIN_TEST = [
    'layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param { '
    "shape { dim: 4 dim: 3 dim: 7 dim: 6 } shape { dim: 4 } "
    'data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }',
    *block()[1:],
    'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }',
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }',
]


def test_block_goes_from_both_phases(make_net: Callable[..., Net]) -> None:
    text = "\n".join(TRAIN_TEST)
    net = make_net(text, pb.TRAIN)
    for blob in net.params["b"] + net.params["bn"]:
        blob.data[...] = np.abs(blob.data) if blob in net.params["bn"] else 0
    result = compact(prototxt.parse(text, pb.NetParameter), net.to_proto())
    assert names(result) == ["data", "stem", "relu2", "ip", "accuracy", "loss"]
    for phase in (pb.TRAIN, pb.TEST):
        small = Net(result.message, result.weights, phase, seed=0)
        small.forward()
        assert np.isfinite(small.loss)


def test_what_one_phase_reads_stays_and_is_no_output_of_the_other(make_net: Callable[..., Net]) -> None:
    """In TRAIN another layer reads the inside of a branch that is zero."""
    text = "\n".join([*TRAIN_TEST, product("aux", "a").replace("type:", "include { phase: TRAIN } type:", 1)])
    net = make_net(text, pb.TRAIN)
    net.params["b"][0].data[...] = net.params["b"][1].data[...] = 0
    for blob in net.params["bn"]:
        blob.data[...] = np.abs(blob.data)
    definition = prototxt.parse(text, pb.NetParameter)
    result = compact(definition, net.to_proto())
    assert "a" in names(result) and "b" not in names(result)
    for phase in (pb.TRAIN, pb.TEST):
        small = Net(result.message, result.weights, phase, seed=0)
        small.forward()
        assert small.outputs == Net(definition, phase=phase).outputs
