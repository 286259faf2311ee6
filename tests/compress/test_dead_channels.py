"""Dead channels: the net without them is the same function, bit for bit, at random inputs of the box and at its corners.

Planned convolutions skip zero filters, in other loops that round other channels otherwise: bits are those of plain nets.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.compress.compaction.compact import compact
from sslnet.compress.pruning.dead_channels import blob_boxes, find_dead_channels, zero_dead_channels
from sslnet.errors import UsageError
from sslnet.net.net import Net


def input_layer(*shape: int) -> str:
    dims = " ".join(f"dim: {n}" for n in shape)
    return f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}\n'


FC = (
    input_layer(64, 2)
    + """
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "ip1" inner_product_param { num_output: 200 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 1 weight_filler { type: "gaussian" std: 1 } } }
"""
)


def build(text: str, seed: int = 1, **options) -> tuple[prototxt.Definition, Net]:
    definition = prototxt.parse(text, pb.NetParameter)
    return definition, Net(definition, phase=pb.TEST, seed=seed, **options)


def inputs_of_the_box(shape, low, high, random):
    yield random.uniform(low, high, shape)
    yield np.where(random.random(shape) < 0.5, low, high)
    yield np.full(shape, low)
    yield np.full(shape, high)


def outputs(net: Net, images) -> list[np.ndarray]:
    results = []
    for x in images:
        net.blobs["x"].data[...] = x
        results += [np.array(value) for value in net.forward().values()]
    return results


def assert_same_function(net: Net, box: tuple[float, float], random: np.random.Generator) -> list:
    """Zeroes the dead channels of a net and compares it with what it was; returns what was found."""
    images = list(inputs_of_the_box(net.blobs["x"].shape, *box, random))
    plain = Net(net.definition, phase=pb.TEST, plain=True, share=net)
    before, planned = outputs(plain, images), outputs(net, images)
    found = find_dead_channels(net, box)
    zero_dead_channels(net, found)
    for old, new in zip(before, outputs(plain, images)):
        np.testing.assert_array_equal(new, old)
    for old, new in zip(planned, outputs(net, images)):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5 * max(1, np.abs(old).max()))
    return found


def test_dead_neurons_are_those_whose_largest_sum_is_not_positive():
    definition, net = build(FC)
    weights, bias = (blob.data.astype(float) for blob in net.params["ip1"])
    random = np.random.default_rng(3)
    net.params["ip1"][1].data[...] = bias = random.uniform(-1, 0.5, 200)
    expected = np.flatnonzero(np.maximum(weights, 0).sum(axis=1) + bias <= -1e-5)
    (found,) = assert_same_function(net, (0, 1), random)
    assert found.layer == "ip1" and 20 < len(expected) < 180
    np.testing.assert_array_equal(found.dead, expected)
    assert not found.values.any() and not len(found.stuck)
    assert not net.params["ip1"][0].data[found.dead].any() and not net.params["ip1"][1].data[found.dead].any()
    small = compact(definition, net.to_proto())
    assert small.message.layer[1].inner_product_param.num_output == 200 - len(expected)
    assert small.difference.relative <= 2e-6


def test_neuron_alive_at_one_corner_alone_is_kept():
    _, net = build(FC)
    net.params["ip1"][0].data[...] = [[-1.0, 1.0]]
    net.params["ip1"][1].data[...] = -0.999
    assert find_dead_channels(net, (0, 1)) == []
    net.params["ip1"][1].data[:5] = -1.001
    (found,) = find_dead_channels(net, (0, 1))
    assert found.dead.tolist() == [0, 1, 2, 3, 4]
    assert find_dead_channels(net, (0, 1.01)) == []


SATURATED = (
    input_layer(4, 3, 6, 6)
    + """
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 6 kernel_size: 3 PAD } }
layer { name: "b" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU6" bottom: "c" top: "c" }
layer { name: "y" type: "Convolution" bottom: "c" top: "y" convolution_param { num_output: 2 kernel_size: 3 } }
"""
)


@pytest.mark.parametrize("pad", ["", "pad: 1", "pad_type: SAME"])
def test_channel_that_always_is_six_keeps_its_number(pad):
    text = SATURATED.replace("PAD", pad)
    definition, net = build(text)
    random = np.random.default_rng(4)
    for param in net.learnable:
        param.blob.data[...] = random.standard_normal(param.blob.shape)
    net.params["b"][1].data[...] = 1
    net.params["b"][2].data[...] = 1
    net.params["s"][0].data[...] = 0.01
    net.params["s"][1].data[...] = [30, -30, 0.5, 30, -30, 0.5]
    (found,) = assert_same_function(net, (-1, 1), random)
    assert found.layer == "c" and found.dead.tolist() == [0, 1, 3, 4]
    assert not net.params["c"][0].data[found.dead].any()
    small = compact(definition, net.to_proto())
    assert small.message.layer[1].convolution_param.num_output < 6
    assert small.difference.relative < 1e-5


def test_channel_without_a_bias_to_hold_its_number_stays():
    text = input_layer(4, 2) + (
        'layer { name: "i" type: "InnerProduct" bottom: "x" top: "i" inner_product_param { num_output: 3 bias_term: false } }'
        'layer { name: "c" type: "Clip" bottom: "i" top: "i" clip_param { min: 1 max: 2 } }'
        'layer { name: "y" type: "InnerProduct" bottom: "i" top: "y" inner_product_param { num_output: 1 } }'
    )
    _, net = build(text)
    net.params["i"][0].data[...] = [[5, 5], [-5, -5], [1, 1]]
    net.params["y"][0].data[...] = 1
    # Neuron 0 is 2 at every input, but not at a sum of 0; neuron 1 is 1 even then.
    (found,) = find_dead_channels(net, (0.5, 1))
    assert found.dead.tolist() == [1] and found.stuck.tolist() == [0]
    x = np.array([[0.5, 0.5], [1, 1], [0.5, 1], [0.75, 0.6]])
    before = net.forward(x=x)["y"].copy()
    zero_dead_channels(net, [found])
    np.testing.assert_array_equal(net.forward(x=x)["y"], before)
    assert not net.params["i"][0].data[1].any() and net.params["i"][0].data[0].all()


def test_residual_stream_is_kept_where_another_branch_is_alive():
    text = input_layer(2, 2, 4, 4) + (
        'layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 3 kernel_size: 1 } }'
        'layer { name: "ra" type: "ReLU" bottom: "a" top: "a" }'
        'layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: 3 kernel_size: 1 } }'
        'layer { name: "rb" type: "ReLU" bottom: "b" top: "b" }'
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" top: "e" }'
        'layer { name: "y" type: "Convolution" bottom: "e" top: "y" convolution_param { num_output: 1 kernel_size: 1 } }'
    )
    _, net = build(text)
    random = np.random.default_rng(0)
    for param in net.learnable:
        param.blob.data[...] = random.uniform(0.1, 1, param.blob.shape)
    net.params["b"][0].data[1] *= -1
    net.params["b"][1].data[1] = -1
    (found,) = assert_same_function(net, (0, 1), random)
    assert (found.layer, found.dead.tolist()) == ("b", [1])


LAYERS = {
    "relu": 'layer {{ name: "{n}" type: "ReLU" bottom: "{b}" top: "{b}" }}',
    "leaky": 'layer {{ name: "{n}" type: "ReLU" bottom: "{b}" top: "{b}" relu_param {{ negative_slope: 0.1 }} }}',
    "relu6": 'layer {{ name: "{n}" type: "ReLU6" bottom: "{b}" top: "{b}" }}',
    "clip": 'layer {{ name: "{n}" type: "Clip" bottom: "{b}" top: "{b}" clip_param {{ min: -0.5 max: 0.5 }} }}',
    "sigmoid": 'layer {{ name: "{n}" type: "Sigmoid" bottom: "{b}" top: "{b}" }}',
}


@settings(deadline=None, max_examples=40)
@given(
    acts=st.lists(st.sampled_from(sorted(LAYERS)), min_size=2, max_size=3),
    kinds=st.lists(st.sampled_from(["conv", "same", "deconv", "group"]), min_size=2, max_size=3),
    pool=st.sampled_from(["", "MAX", "AVE"]),
    norm=st.booleans(),
    joined=st.booleans(),
    box=st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.25, 0.5)]),
    shift=st.sampled_from([-6.0, -3.0, 0.0, 3.0]),
    seed=st.integers(0, 999),
)
def test_random_net_without_its_dead_channels_is_the_same_function(acts, kinds, pool, norm, joined, box, shift, seed):
    text, bottom = input_layer(2, 3, 8, 8), "x"
    params = {
        "conv": "num_output: 8 kernel_size: 3 pad: 1",
        "same": "num_output: 8 kernel_size: 4 pad_type: SAME",
        "deconv": "num_output: 8 kernel_size: 3 pad: 1",
        "group": "num_output: 8 kernel_size: 3 pad: 1 group: 4",
    }
    for k, kind in enumerate(kinds):
        kind = "conv" if kind == "group" and bottom == "x" else kind
        type_ = "Deconvolution" if kind == "deconv" else "Convolution"
        text += f'layer {{ name: "c{k}" type: "{type_}" bottom: "{bottom}" top: "c{k}" convolution_param {{ {params[kind]} }} }}\n'
        bottom = f"c{k}"
        if norm:
            text += f'layer {{ name: "s{k}" type: "Scale" bottom: "{bottom}" top: "{bottom}" scale_param {{ bias_term: true }} }}\n'
        text += LAYERS[acts[k % len(acts)]].format(n=f"a{k}", b=bottom) + "\n"
        if pool and k == 0:
            text += f'layer {{ name: "p" type: "Pooling" bottom: "{bottom}" top: "p" pooling_param {{ pool: {pool} kernel_size: 3 pad: 1 }} }}\n'
            bottom = "p"
    if joined and len(kinds) > 1:
        text += f'layer {{ name: "e" type: "Eltwise" bottom: "{bottom}" bottom: "c0" top: "e" }}\n'
        bottom = "e"
    text += f'layer {{ name: "y" type: "InnerProduct" bottom: "{bottom}" top: "y" inner_product_param {{ num_output: 4 }} }}\n'
    _, net = build(text, seed)
    random = np.random.default_rng(seed)
    for param in net.learnable:
        param.blob.data[...] = random.standard_normal(param.blob.shape) * 0.3
        if param.index == 1 and param.layer.TYPE != "InnerProduct":
            values = param.blob.data
            values += shift * random.choice([0, 1], param.blob.shape)
    net.blobs["x"].data[...] = np.where(random.random(net.blobs["x"].shape) < 0.5, *box)
    net.forward()
    for name, own in blob_boxes(net, box).items():
        data = net.blobs[name].data
        axes = tuple(n for n in range(data.ndim) if n != 1)
        assert (data.min(axis=axes) >= own.low).all() and (data.max(axis=axes) <= own.high).all(), name
    assert_same_function(net, box, random)


def test_input_without_bounds_is_an_error_that_says_what_to_give():
    _, net = build(FC)
    with pytest.raises(UsageError, match=r"the inputs of the net have no bounds: \"x\" \(Input\)") as caught:
        find_dead_channels(net)
    assert "--box LO,HI" in str(caught.value)


def test_box_of_dummy_data_and_of_bytes_is_known():
    text = FC.replace(
        input_layer(64, 2),
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 64 dim: 2 } data_filler { type: "uniform" min: 0 max: 1 } } }\n',
    )
    _, net = build(text)
    negative = np.flatnonzero((net.params["ip1"][0].data < 0).all(axis=1))
    assert len(negative) > 20, "their sums are at most 0, however they are rounded"
    np.testing.assert_array_equal(find_dead_channels(net)[0].dead, negative)
    digits = """layer { name: "d" type: "Data" top: "x" top: "label" transform_param { scale: 0.0625 } data_param { source: "digits/test" backend: BUILTIN batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 10 } }"""
    _, net = build(digits)
    box = blob_boxes(net)["x"]
    assert (box.low[0], box.high[0]) == (0, 255 / 16)
