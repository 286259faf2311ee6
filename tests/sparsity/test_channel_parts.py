"""Channel parts: what belongs to a class of coupled channels, found by changing it and looking at what the net gives."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.net.net import Net
from sslnet.sparsity.channel_parts import ChannelParts, Role

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }\n'
NETS = {
    "residual": """
    layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
    layer { name: "bn" type: "BatchNorm" bottom: "a" top: "n" }
    layer { name: "scale" type: "Scale" bottom: "n" top: "s" scale_param { bias_term: true } }
    layer { name: "prelu" type: "PReLU" bottom: "s" top: "p" }
    layer { name: "b" type: "Convolution" bottom: "p" top: "b" convolution_param { num_output: 4 kernel_size: 1 } }
    layer { name: "sum" type: "Eltwise" bottom: "p" bottom: "b" top: "sum" }
    layer { name: "out" type: "InnerProduct" bottom: "sum" top: "out" inner_product_param { num_output: 3 transpose: true } }
    """,
    "deconvolution, depthwise": """
    layer { name: "a" type: "Deconvolution" bottom: "data" top: "a" convolution_param { num_output: 5 kernel_size: 2 } }
    layer { name: "bias" type: "Bias" bottom: "a" top: "c" }
    layer { name: "d" type: "Convolution" bottom: "c" top: "d" convolution_param { num_output: 5 group: 5 kernel_size: 3 } }
    layer { name: "out" type: "InnerProduct" bottom: "d" top: "out" inner_product_param { num_output: 3 } }
    """,
    "kept columns": """
    layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 3 kernel_size: 1 } }
    layer { name: "out" type: "Convolution" bottom: "a" top: "out" convolution_param { num_output: 2 kernel_size: 2
            kept_column: 0 kept_column: 3 kept_column: 5 kept_column: 6 kept_column: 10 } }
    """,
}


def make(name: str) -> Net:
    net = Net(prototxt.parse(INPUT + NETS[name], pb.NetParameter), seed=0)
    random = np.random.default_rng(1)
    for param in net.learnable:
        param.blob.data[...] = np.abs(random.standard_normal(param.blob.shape)) + 0.1
    return net


def outputs(net: Net) -> np.ndarray:
    return net.forward(data=np.abs(np.random.default_rng(2).standard_normal((2, 4, 6, 6))) + 0.1)["out"].copy()


@pytest.mark.parametrize("name", NETS)
def test_without_what_reads_a_class_nothing_that_makes_it_matters(name: str) -> None:
    """With the readers of a class cleared, its makers and followers have no effect; those of all other classes have."""
    net = make(name)
    parts = ChannelParts(net)
    made = sorted({number for part in parts.of(Role.MAKER) for number in part.classes.tolist()})
    read = [n for n in made if any((part.classes == n).any() for part in parts.of(Role.READER))]
    assert len(read) >= 3
    for number in read:
        net = make(name)
        parts = ChannelParts(net)
        for part in parts.of(Role.READER):
            part.clear(part.classes == number)
        whole = outputs(net)
        for other in read:
            for part in [p for p in parts.parts if p.role is not Role.READER and (p.classes == other).any()]:
                saved = part.param.blob.data.copy()
                flags = (part.classes == other).reshape(part.tiles().shape[0], 1, -1, 1)
                part.tiles()[...] *= np.where(flags, 1.5, 1)
                changed = np.abs(outputs(net) - whole).max() > 1e-5 * np.abs(whole).max()
                assert changed == (other != number) or part.param.layer.TYPE == "PReLU", (number, other, part)
                part.param.blob.data[...] = saved


@pytest.mark.parametrize("name", NETS)
def test_every_weight_has_one_maker_or_follower_at_most_and_one_reader(name: str) -> None:
    parts = ChannelParts(make(name))
    for roles in ({Role.MAKER, Role.FOLLOWER}, {Role.READER}):
        owners = [id(part.param.blob) for part in parts.parts if part.role in roles]
        assert len(owners) == len(set(owners))
    for part in parts.parts:
        assert part.tiles().shape[0] * part.tiles().shape[2] == len(part.classes)
        assert part.listed == (name == "kept columns" and part.param.name == "out[0]" and part.role is Role.READER)


def test_depthwise_convolution_makes_channels_and_reads_none() -> None:
    parts = ChannelParts(make("deconvolution, depthwise"))
    roles = {part.role for part in parts.parts if part.param.layer.name == "d"}
    assert roles == {Role.MAKER}
    made = {part.param.name: part.classes.tolist() for part in parts.of(Role.MAKER)}
    assert made["a[0]"] == made["d[0]"] == made["d[1]"]
