"""Nets of older Caffes run, and what is wrong with them is told at its place."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DefinitionError
from sslnet.net.net import Net

OF_2013 = """\
input: "data"
input_dim: 2 input_dim: 3 input_dim: 6 input_dim: 5
layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "data" top: "padded" }
layers {
  layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 weight_filler { type: "gaussian" std: 0.1 } }
  bottom: "padded" top: "conv"
}
layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
layers { layer { name: "ip" type: "innerproduct" num_output: 2 weight_filler { type: "xavier" } }
  bottom: "conv" top: "ip" }
"""
OF_2014 = """\
input: "data"
input_shape { dim: 2 dim: 3 dim: 6 dim: 5 }
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.1 } } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
layers { name: "ip" type: INNER_PRODUCT bottom: "conv" top: "ip" blobs_lr: 1 blobs_lr: 0
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""
OF_TODAY = """\
layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""


def output(net: Net) -> np.ndarray:
    data = np.random.default_rng(0).standard_normal((2, 3, 6, 5)).astype(np.float32)
    return np.array(net.forward(data=data)["ip"])


@pytest.mark.parametrize("text", [OF_2013, OF_2014], ids=["2013", "2014"])
def test_old_net_computes_what_its_new_form_computes(text: str) -> None:
    old, new = (Net(prototxt.parse(form, pb.NetParameter), seed=1) for form in (text, OF_TODAY))
    assert old.layer_names == new.layer_names
    np.testing.assert_array_equal(output(old), output(new))


@pytest.mark.parametrize("as_message", [True, False])
def test_old_net_may_come_as_a_message(as_message: bool) -> None:
    message = prototxt.parse(OF_2014, pb.NetParameter, as_written=True).message
    net = Net(message if as_message else prototxt.Definition(message), seed=1)
    np.testing.assert_array_equal(output(net), output(Net(prototxt.parse(OF_TODAY, pb.NetParameter), seed=1)))


def test_rates_of_an_old_net_reach_its_parameters() -> None:
    net = Net(prototxt.parse(OF_2014, pb.NetParameter), phase=pb.TRAIN)
    assert {param.name: param.lr_mult for param in net.learnable} == {
        "conv[0]": 1,
        "conv[1]": 1,
        "ip[0]": 1,
        "ip[1]": 0,
    }


@pytest.mark.parametrize(
    ("text", "change", "place"),
    [
        (OF_2013, ("num_output: 4", "num_output: 0"), (5, "num_output")),
        (
            OF_2013,
            ('"conv"\n}', '"conv"\n}\nlayers { layer { name: "r" type: "relu" } bottom: "cnv" top: "r" }'),
            (8, '"cnv"'),
        ),
        (OF_2014, ("num_output: 4", "num_output: 0"), (4, "num_output")),
        (OF_2014, ('bottom: "conv" top: "ip"', 'bottom: "cnv" top: "ip"'), (6, '"cnv"')),
    ],
)
def test_error_in_an_old_net_is_told_at_its_place(text: str, change: tuple[str, str], place: tuple[int, str]) -> None:
    with pytest.raises(DefinitionError) as caught:
        Net(prototxt.parse(text.replace(*change), pb.NetParameter, path="net.prototxt"))
    span = caught.value.span
    assert span is not None
    assert (span.line, span.text[span.column - 1 :][: span.length]) == place
