"""What layers tell compaction: the smaller layer, on the channels that stay, computes what the whole layer computed.

One layer alone: some of its weights are zero, some bottom channels are constant, some tops are not needed. Its own
answers say what must stay; the layer is shrunk to just that, and both are run.
"""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.layers import LAYERS
from sslnet.layers.base import Layer
from sslnet.net.net import Net

from .harness import inputs


def net_of(shape: tuple[int, ...], layer) -> Net:
    message = prototxt.parse(inputs(x=shape), pb.NetParameter).message
    message.layer.add().CopyFrom(layer)
    return Net(message, phase=pb.TEST, dtype=np.float64, seed=1)


def layer_of(text: str):
    return prototxt.parse(f'layer {{ name: "l" bottom: "x" top: "y" {text} }}', pb.NetParameter).message.layer[0]


def whole_net(shape, text: str, seed: int = 3) -> Net:
    net = net_of(shape, layer_of(text))
    random = np.random.default_rng(seed)
    for blob in net.layers[1].blobs:
        blob.data[...] = random.standard_normal(blob.shape)
    return net


def flags(size: int, *true: int) -> np.ndarray:
    result = np.zeros(size, bool)
    result[list(true)] = True
    return result


def check(net: Net, bottom_constant: np.ndarray, top_needed: np.ndarray, keeps: tuple[list[int], list[int]]) -> None:
    """Shrinks the layer to what it says must stay (``keeps`` of bottom and top), compares outputs.

    Constant channels hold one value for all images and pixels; what the left-out ones contribute to the tops that stay is
    found by running the whole layer on them alone.
    """
    layer = net.layers[1]
    x = np.random.default_rng(4).standard_normal(net.blobs["x"].shape)
    x[:, bottom_constant] = 1.5
    expected = net.forward(x=x)["y"].copy()
    bottom_needed = layer.needed_channels([top_needed], [bottom_constant])[0]
    followed = layer.followed_channels([bottom_needed])
    top_stay = top_needed | followed[0] if followed else top_needed
    bottom_keep, top_keep = np.flatnonzero(bottom_needed), np.flatnonzero(top_stay)
    assert (bottom_keep.tolist(), top_keep.tolist()) == keeps

    shift = None
    if (bottom_constant & ~bottom_needed).any():
        left_out = x * (bottom_constant & ~bottom_needed).reshape(1, -1, *[1] * (x.ndim - 2))
        contributed = net.forward(x=left_out)["y"].copy() - net.forward(x=0 * x)["y"]
        contributed = contributed[0].reshape(expected.shape[1], -1)[top_keep]
        assert np.ptp(contributed, axis=1) == pytest.approx(0)
        shift = contributed[:, 0]
    param, blobs = layer.shrink([bottom_keep], [top_keep], shift)
    small = net_of((x.shape[0], len(bottom_keep), *x.shape[2:]), param)
    assert [blob.shape for blob in small.layers[1].blobs] == [blob.shape for blob in blobs]
    for blob, values in zip(small.layers[1].blobs, blobs, strict=True):
        blob.data[...] = values
    np.testing.assert_allclose(small.forward(x=x[:, bottom_keep])["y"], expected[:, top_keep], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", ["true", "false"])
def test_convolution_loses_unused_channels_and_dead_filters(bias):
    net = whole_net(
        (2, 5, 6, 6), f'type: "Convolution" convolution_param {{ num_output: 4 kernel_size: 3 bias_term: {bias} }}'
    )
    weights = net.params["l"][0].data
    weights[:, 1] = 0
    weights[0] = 0
    weights[3, :4] = 0
    constant = flags(5, 4)
    assert net.layers[1].constant_channels([constant])[0].tolist() == [True, False, False, True]
    check(net, constant, flags(4, 1, 2), ([0, 2, 3], [1, 2]))
    check(net, flags(5), flags(4, 3), ([4], [3]))


def test_depthwise_convolution_loses_channels_one_by_one():
    net = whole_net((2, 4, 6, 6), 'type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 group: 4 }')
    net.params["l"][0].data[6:] = 0
    assert net.layers[1].constant_channels([flags(4, 0)])[0].tolist() == [True] * 2 + [False] * 4 + [True] * 2
    check(net, flags(4), flags(8, 2, 5), ([1, 2], [2, 5]))


@pytest.mark.parametrize("transpose", ["true", "false"])
@pytest.mark.parametrize("shape", [(3, 5, 2, 2), (3, 5)])
@pytest.mark.parametrize("bias", ["true", "false"])
def test_inner_product_loses_the_columns_of_a_channel_and_rows(shape, transpose, bias):
    net = whole_net(
        shape, f'type: "InnerProduct" inner_product_param {{ num_output: 4 transpose: {transpose} bias_term: {bias} }}'
    )
    layer = net.layers[1]
    by_channel = (net.params["l"][0].data.T if transpose == "true" else net.params["l"][0].data).reshape(4, 5, -1)
    by_channel[:, 1] = 0
    by_channel[2] = 0
    constant = flags(5, 3)
    assert layer.constant_channels([constant])[0].tolist() == [False, False, True, False]
    check(net, constant, flags(4, 0, 3), ([0, 2, 4], [0, 3]))


def test_new_bias_is_trained_as_the_weights_are_but_not_decayed():
    text = 'type: "InnerProduct" param { lr_mult: 0.5 decay_mult: 2 } inner_product_param { num_output: 2 bias_term: false }'
    net = whole_net((3, 2), text)
    param, blobs = net.layers[1].shrink([np.array([0])], [np.array([0, 1])], np.array([1.0, 2.0]))
    assert param.inner_product_param.bias_term
    assert [(spec.lr_mult, spec.decay_mult) for spec in param.param] == [(0.5, 2), (0.5, 0)]
    np.testing.assert_array_equal(blobs[1], [1, 2])


@pytest.mark.parametrize("param", ["", "axis: 0 num_axes: -1", "num_axes: 0", "axis: 2 num_axes: 1"])
def test_bias_loses_channels_where_it_has_them(param):
    shape = (2, 3, 4, 4)
    check(whole_net(shape, f'type: "Bias" bias_param {{ {param} }}'), flags(3), flags(3, 0, 2), ([0, 2], [0, 2]))


@pytest.mark.parametrize(
    "text",
    [
        'type: "Dropout"',
        'type: "LRN" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }',
        'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }',
        'type: "Pooling" pooling_param { pool: AVE global_pooling: true }',
        'type: "ReLU"',
        'type: "Split"',
    ],
)
def test_channels_of_a_layer_that_keeps_them_apart_are_tied_one_to_one(text):
    net = whole_net((2, 4, 5, 5), text)
    layer = net.layers[1]
    assert layer.constant_channels([flags(4, 1)])[0].tolist() == [False, True, False, False]
    assert layer.followed_channels([flags(4, 1)])[0].tolist() == [False, True, False, False]
    check(net, flags(4), flags(4, 0, 3), ([0, 3], [0, 3]))


def refuses(layer: Layer, bottoms: int, channels: int, tops: list[int]) -> bool:
    """No channel of any bottom or top may go, whatever is asked."""
    if not layer.SHRINKS:
        return True
    nothing = [flags(channels) for _ in range(bottoms)]
    needed = layer.needed_channels([flags(n) for n in tops], nothing)
    stay = layer.followed_channels(nothing)
    return (
        not layer.constant_channels(nothing) and not needed and [s.tolist() for s in stay] == [[True] * n for n in tops]
    )


@pytest.mark.parametrize(
    ("text", "tops"),
    [
        ('type: "LRN"', 4),
        ('type: "Softmax"', 4),
        ('type: "InnerProduct" inner_product_param { num_output: 3 axis: 2 }', 4),
        ('type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 axis: 0 }', 3),
    ],
)
def test_layer_that_mixes_channels_otherwise_refuses(text, tops):
    assert refuses(whole_net((2, 4, 5, 5), text).layers[1], 1, 4, [tops])


def test_layers_with_two_bottoms_refuse():
    text = inputs(x=(2, 4, 5, 5), b=(4,)) + 'layer { name: "l" type: "Bias" bottom: "x" bottom: "b" top: "y" }'
    assert refuses(Net(prototxt.parse(text, pb.NetParameter)).layers[2], 2, 4, [4])
    text = inputs(x=(2, 4, 5, 5), b=(2, 4, 5, 5)) + (
        'layer { name: "l" type: "Convolution" bottom: "x" bottom: "b" top: "y" top: "z"'
        " convolution_param { num_output: 3 kernel_size: 1 } }"
    )
    assert refuses(Net(prototxt.parse(text, pb.NetParameter)).layers[2], 2, 4, [3, 3])


@pytest.mark.parametrize("type_", ["Accuracy", "EuclideanLoss", "SoftmaxWithLoss", "Softmax"])
def test_losses_refuse(type_):
    assert not LAYERS[type_].SHRINKS
