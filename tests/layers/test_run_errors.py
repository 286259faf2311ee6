"""What only shows while a net runs, and what has no gradient: the messages, to the letter."""

from __future__ import annotations

import numpy as np
import pytest

from sslnet import prototxt
from sslnet import sslnet_pb2 as pb
from sslnet.errors import DataError, RunError
from sslnet.net.net import Net

from .harness import inputs


def net_of(text: str) -> Net:
    return Net(prototxt.parse(text, pb.NetParameter), phase=pb.TRAIN, seed=1)


@pytest.mark.parametrize(
    ("type_", "shapes"),
    [
        ("HingeLoss", {"x": (4, 3), "label": (4,)}),
        ("MultinomialLogisticLoss", {"x": (4, 3), "label": (4,)}),
        ("InfogainLoss", {"x": (4, 3), "label": (4,), "h": (3, 3)}),
    ],
)
def test_loss_names_the_label_out_of_range(type_, shapes):
    bottoms = " ".join(f'bottom: "{name}"' for name in shapes)
    loss = f'layer {{ name: "l" type: "{type_}" {bottoms} }}'
    net = net_of(inputs(**shapes) + "\n" + loss)
    with pytest.raises(RunError) as caught:
        net.forward(label=np.array([0, 2, 3, -1]))
    assert str(caught.value) == (
        f"<text>:{caught.value.line}:1: error: label 3 of image 2 of the batch is out of range: the 3 classes are 0 .. 2\n"
        f"      {loss}\n"
        "      ^^^^^\n"
        '  layer "l"; is num_output the number of classes, and do the labels start at 0?'
    )


def test_embed_names_the_input_out_of_range():
    net = net_of(
        inputs(x=(2, 2))
        + 'layer { name: "l" type: "Embed" bottom: "x" top: "y" embed_param { num_output: 2 input_dim: 7 } }'
    )
    with pytest.raises(RunError, match=r"input 7 at place 2 is out of range: the rows are 0 \.\. 6"):
        net.forward(x=np.array([[0, 6], [7, 1]]))


def test_batch_reindex_names_the_index_out_of_range():
    net = net_of(inputs(x=(4, 3), i=(2,)) + 'layer { name: "l" type: "BatchReindex" bottom: "x" bottom: "i" top: "y" }')
    with pytest.raises(RunError, match=r"index -1 at place 1 is out of range: the images are 0 \.\. 3"):
        net.forward(i=np.array([3, -1]))


@pytest.mark.parametrize(
    ("type_", "param", "message"),
    [
        ("ArgMax", "", "ArgMax has no gradient"),
        ("Threshold", "", "Threshold has no gradient"),
        ("Embed", "embed_param { num_output: 2 input_dim: 9 }", "Embed has no gradient for its inputs"),
    ],
)
def test_layer_without_a_gradient_says_so(type_, param, message):
    net = net_of(
        inputs(x=(2, 3))
        + 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "h" inner_product_param { num_output: 4 } }'
        + f'layer {{ name: "l" type: "{type_}" bottom: "h" top: "y" loss_weight: 1 {param} }}'
    )
    net.forward()
    with pytest.raises(RunError, match=message):
        net.backward()


def test_layer_without_a_gradient_is_left_out_where_none_is_wanted():
    net = net_of(
        inputs(x=(2, 3))
        + 'layer { name: "i" type: "InnerProduct" bottom: "x" top: "h" inner_product_param { num_output: 4 } }'
        + 'layer { name: "l" type: "ArgMax" bottom: "h" top: "y" }'
    )
    net.forward()
    net.backward()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, 'there is no file "h.binaryproto"'), (b"\xff", "holds no BlobProto")],
)
def test_infogain_loss_says_what_is_wrong_with_its_file(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "h.binaryproto").write_bytes(content)
    text = inputs(x=(4, 3), label=(4,)) + (
        'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "label"'
        ' infogain_loss_param { source: "h.binaryproto" } }'
    )
    with pytest.raises(DataError, match=message):
        net_of(text)
